"""Rows against faster-whisper: a distilled student on its test set, exported."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import peft
from transformers import WhisperForConditionalGeneration

from bench.harness import Contest, row
from bench.world import RECIPE, Clip, World, about, read_clips, seconds
from espnet_lora_experts.inference import Speech2Text
from espnet_lora_experts.report import errors
from espnet_lora_experts.whisper import hub
from espnet_lora_experts.whisper.backbone import Backbone
from espnet_lora_experts.whisper.description import read_description
from espnet_lora_experts.whisper.languages import normalize

TOKENS_A_SECOND = 25
"""Most tokens of a transcript, ours and the peer's: one that loops ends there."""
EXACT = {
    "without_timestamps": True,
    "suppress_tokens": [],
    "suppress_blank": False,
    "condition_on_previous_text": False,
}


@row(
    "decode_fw",
    "greedy, student in batches",
    "faster-whisper (float32), one clip after the other",
    faster=1.5,
    student=True,
)
def decode_fw(world: World) -> Contest:
    return against(world, 1, one_by_one)


@row(
    "decode_fw_batched",
    "greedy, student in batches",
    "faster-whisper's batched pipeline (float32), batches of 16",
    faster=1.5,
    student=True,
)
def decode_fw_batched(world: World) -> Contest:
    return against(world, 1, batched)


@row(
    "decode_fw_beam",
    "beam 5, student in batches",
    "faster-whisper (float32), beam 5",
    faster=1.5,
    student=True,
)
def decode_fw_beam(world: World) -> Contest:
    return against(world, 5, one_by_one)


def against(world: World, beam_size: int, peer: Callable) -> Contest:
    """Ours at natural length and the peer, both in float32, on clips of the test."""
    assert world.student is not None  # the command line has seen to it
    clips = read_clips(RECIPE / "dump/raw/test")[::2][:96]
    backbone = Backbone.from_pretrained(world.backbone).to(world.device)
    speech2text = Speech2Text.from_pretrained(
        world.student,
        backbone,
        beam_size=beam_size,
        maxlenratio=TOKENS_A_SECOND / 50,  # for each 20 ms
    )
    speech2text.backbone.to(world.device)
    langs = [clip.lang for clip in clips]
    speech = [clip.speech for clip in clips]
    texts: dict[str, list[str]] = {}

    def ours():
        texts["ours"] = [x.text for x in speech2text(speech, langs)]

    transcribe = peer(model(world, world.student), clips, beam_size)

    def theirs():
        texts["peer"] = transcribe()

    def note():
        rates = {who: wer(clips, found) for who, found in texts.items()}
        return f"{about(clips)}, WER {rates['ours']:.1f} and {rates['peer']:.1f}"

    return Contest(ours, theirs, seconds(clips), note, counted=False)


@cache
def model(world: World, student: Path):
    """The student, merged by PEFT and converted by CTranslate2, in faster-whisper."""
    import ctranslate2
    import torch
    from faster_whisper import WhisperModel

    folder = Path(tempfile.mkdtemp(prefix="ct2"))
    source = hub.resolve(world.backbone)
    whisper = WhisperForConditionalGeneration.from_pretrained(source)
    (expert,) = read_description(student)["experts"].values()
    merged = peft.PeftModel.from_pretrained(whisper, student / expert)
    merged.merge_and_unload().save_pretrained(folder / "hf")
    for file in source.iterdir():
        if file.suffix in (".json", ".txt") and file.name != "config.json":
            (folder / "hf" / file.name).write_bytes(file.read_bytes())
    kept = ["tokenizer.json", "preprocessor_config.json"]
    converter = ctranslate2.converters.TransformersConverter(
        str(folder / "hf"), copy_files=kept
    )
    converter.convert(str(folder / "ct2"))
    threads = torch.get_num_threads()
    return WhisperModel(
        str(folder / "ct2"), world.device, compute_type="float32", cpu_threads=threads
    )


def one_by_one(model, clips: Sequence[Clip], beam_size: int):
    """Work: every clip by itself."""

    def text(clip: Clip) -> str:
        found, _ = model.transcribe(
            clip.speech,
            language=clip.lang,
            beam_size=beam_size,
            temperature=0.0,
            vad_filter=False,
            max_new_tokens=most_tokens([clip]),
            **EXACT,
        )
        return " ".join(segment.text.strip() for segment in found)

    return lambda: [text(clip) for clip in clips]


def batched(model, clips: Sequence[Clip], beam_size: int):
    """Work: the clips of a language as one recording with known borders."""
    from faster_whisper import BatchedInferencePipeline

    pipeline = BatchedInferencePipeline(model)

    def texts(group: list[Clip]) -> list[str]:
        ends = np.cumsum([len(clip.speech) for clip in group]) / 16_000
        starts = [0.0, *ends[:-1]]
        borders = [
            {"start": float(a), "end": float(b)}
            for a, b in zip(starts, ends, strict=True)
        ]
        found, _ = pipeline.transcribe(
            np.concatenate([clip.speech for clip in group]),
            language=group[0].lang,
            beam_size=beam_size,
            temperature=0.0,
            vad_filter=False,
            clip_timestamps=borders,
            max_new_tokens=most_tokens(group),
            batch_size=16,
            **EXACT,
        )
        said = [""] * len(group)
        for segment in found:
            place = int(np.searchsorted(starts, segment.start + 0.01, "right")) - 1
            said[place] = f"{said[place]} {segment.text.strip()}".strip()
        return said

    def work():
        by_lang: dict[str, list[Clip]] = {}
        for clip in clips:
            by_lang.setdefault(clip.lang, []).append(clip)
        found = {
            clip.utt: text
            for group in by_lang.values()
            for clip, text in zip(group, texts(group), strict=True)
        }
        return [found[clip.utt] for clip in clips]

    return work


def most_tokens(clips: Sequence[Clip]) -> int:
    """The bound on a transcript: the longest clip's."""
    longest = max(seconds([clip]) for clip in clips)
    return max(1, int(TOKENS_A_SECOND * longest))


def wer(clips: Sequence[Clip], texts: Sequence[str]) -> float:
    """Word error rate over all clips, in %."""
    references = [normalize(clip.text, clip.lang) for clip in clips]
    found = [normalize(text, c.lang) for c, text in zip(clips, texts, strict=True)]
    return errors.rate(errors.count_errors(references, found, "word"))
