"""Exports a trained system for other programs, and measures what they make of it.

    python -m espnet_lora_experts.bin.export exp/kd --to ctranslate2 out/kd-ct2
    python -m espnet_lora_experts.bin.export exp/mono --lang es --to ggml out/es.bin
    python -m espnet_lora_experts.bin.export exp/mole --to huggingface out/mole

A pooled LoRA, a distilled student, a fully fine-tuned Whisper, or one language (--lang)
of a system with experts becomes one Whisper: a checkpoint for transformers, a folder
for faster-whisper, or a file for whisper.cpp. Without --lang, a system with experts is
exported as its experts and its router, which Speech2Text.from_pretrained loads. With
--test_set, the word error rates of the system and of its export are printed.

All programs but ours pad every clip to 30 s. A system that was trained at natural
length hears padded clips worse: train it with model_conf's pad_to_30s_prob for them.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from espnet_lora_experts.bin import cli
from espnet_lora_experts.inference import Speech2Text
from espnet_lora_experts.report.decodes import read_test_set, require
from espnet_lora_experts.report.kaldi import read_table
from espnet_lora_experts.report.results import Decoded, score
from espnet_lora_experts.whisper import languages
from espnet_lora_experts.whisper.export import (
    CTRANSLATE2,
    DTYPES,
    FOLDED,
    FORMATS,
    GGML,
    HUGGINGFACE,
    Options,
    engines,
    export,
)
from espnet_lora_experts.whisper.features import MAX_SAMPLES
from espnet_lora_experts.whisper.prompt import Prompter
from espnet_lora_experts.whisper.wav_scp import read_entry

ENGINES = {
    HUGGINGFACE: "transformers",
    CTRANSLATE2: "faster-whisper",
    GGML: "whisper.cpp",
}
SAMPLES, SEED = 1000, 0
"""Of the bootstrap, as bin.score has them."""


def get_parser() -> argparse.ArgumentParser:
    """Options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("dir", metavar="DIR", help="the system's folder, e.g. exp/kd")
    add("--to", required=True, choices=FORMATS, help="format")
    add("out", metavar="OUT", type=Path, help="folder to write; a file for ggml")
    add("--lang", help="one language only: that of an expert, for example es")
    add(
        "--dtype",
        choices=[*DTYPES],
        help="of the weights of huggingface (default: float32) and ggml (default: "
        "float16, since whisper.cpp itself runs no float32)",
    )
    add(
        "--quantization",
        help="of the weights of ctranslate2: float32 (default), float16, bfloat16, "
        "int16, int8, int8_float32, int8_float16, int8_bfloat16",
    )
    add(
        "--with_backbone",
        action="store_true",
        help="put the backbone beside experts, so that the folder needs no hub",
    )
    add("--force", action="store_true", help="replace an earlier export at OUT")
    add(
        "--test_set",
        type=Path,
        metavar="FOLDER",
        help="measure on it: wav.scp, text, utt2lang, e.g. dump/raw/test",
    )
    return parser


def main(cmd: Sequence[str] | None = None) -> None:
    """Exports and, where a test set is given, measures."""
    cli.show_log()
    logging.getLogger("faster_whisper").setLevel("WARNING")  # else a line for each clip
    args = get_parser().parse_args(cmd)
    names = ("to", "lang", "dtype", "quantization", "with_backbone")
    options = Options(**{name: getattr(args, name) for name in names})
    clips = read_clips(args.test_set, args.lang) if args.test_set else None
    facts = export(args.dir, args.out, options, args.force)
    print(how_to_use(args.out, facts))
    if clips is not None:
        print(measure(args.dir, args.out, facts, clips))


def how_to_use(out: Path, facts: dict[str, Any]) -> str:
    """What was written and how to load it."""
    langs = facts["languages"]
    head = f"one Whisper for {' '.join(langs)}, {facts['dtype']}"
    load = {
        HUGGINGFACE: f'pipeline("automatic-speech-recognition", model="{out}")',
        CTRANSLATE2: f'faster_whisper.WhisperModel("{out}")',
        GGML: f"whisper-cli --no-timestamps --language {langs[0]} --model {out}",
    }[facts["format"]]
    if facts["type"] != FOLDED:
        held = "in it" if facts["with_backbone"] else facts["backbone"]["name"]
        head = f"{facts['type']} of {' '.join(langs)} as PEFT experts"
        head += " and router" if facts["type"] == "mole" else ""
        head += f"; backbone: {held}"
        load = f'Speech2Text.from_pretrained("{out}")'
    return f"{out}: {head}\nload it: {load}"


@dataclass(frozen=True)
class Clips:
    """A test set, or what of it is in the exported language.

    Attributes:
        utts: Names.
        langs: True languages.
        references: Normalised texts.
        speech: Samples at 16 kHz.
    """

    utts: list[str]
    langs: list[str]
    references: list[str]
    speech: list[np.ndarray]


def read_clips(folder: Path, lang: str | None) -> Clips:
    """Reads a test set, before anything is exported.

    Raises:
        FileNotFoundError: A table is missing.
        ValueError: A clip is missing, broken or over 30 s, or none is in the language.
    """
    test_set, wavs = read_test_set(folder), read_table(folder / "wav.scp")
    require(test_set.utts, wavs, f"{folder}/wav.scp")
    rows = zip(test_set.utts, test_set.langs, test_set.texts, strict=True)
    kept = [row for row in rows if lang in (None, row[1])]
    if not kept:
        raise ValueError(
            f"{folder} must have clips in the language {lang!r}, but has none; it has "
            f"{' '.join(sorted(set(test_set.langs)))}"
        )
    utts, langs, texts = (list(column) for column in zip(*kept, strict=True))
    speech = [read_entry(wavs[utt]) for utt in utts]
    long = [u for u, x in zip(utts, speech, strict=True) if len(x) > MAX_SAMPLES]
    if long:
        raise ValueError(
            f"{folder} must have clips of at most 30 s, but got {long[:5]}; leave "
            "longer ones out"
        )
    return Clips(utts, langs, texts, speech)


def measure(folder: str, out: Path, facts: dict[str, Any], clips: Clips) -> str:
    """Error rates of the system and of its export, and transcripts that differ.

    Args:
        folder: The system's.
        out: Its export.
        facts: What the export is.
        clips: What to measure on; the language is given.
    """
    ours = Speech2Text.from_pretrained(folder)
    texts = {f"Speech2Text, {folder}": listen(ours, clips)}
    if facts["type"] == FOLDED:
        name = ENGINES[facts["format"]]
        alike = f"Speech2Text, {folder}, clips padded to 30 s"
        padded = Speech2Text.from_pretrained(
            folder, ours.backbone, pad_to_30s=True, maxlenratio=0
        )
        texts[alike] = listen(padded, clips)
        found = run(engine(out, facts["format"], padded.prompter), clips, name)
        if facts["format"] == CTRANSLATE2:
            itself = engines.faster_whisper(out, silence=False)
            texts[f"{name}, {out}, features padded by itself"] = run(
                itself, clips, name
            )
    else:
        alike, name = next(iter(texts)), "Speech2Text"
        found = listen(Speech2Text.from_pretrained(out), clips)
    texts[f"{name}, {out}"] = found
    rates = [f"{rate(clips, said)}  {who}" for who, said in texts.items()]
    head = f"word error rates in %, language given, {len(clips.utts)} clips:"
    both = f"{alike} | {name}, {out}:"
    return "\n".join([head, *rates, both, differences(clips, texts[alike], found)])


def run(transcribe: engines.Transcribe, clips: Clips, name: str) -> list[str]:
    """Transcripts by another program."""
    pairs = zip(clips.speech, clips.langs, strict=True)
    bar = tqdm(pairs, desc=name, total=len(clips.utts), ncols=79)
    return [transcribe(speech, lang) for speech, lang in bar]


def engine(out: Path, to: str, prompter: Prompter) -> engines.Transcribe:
    """The program that runs a format."""
    if to == CTRANSLATE2:
        return engines.faster_whisper(out)
    if to == GGML:
        return engines.whisper_cpp(out, prompter)
    return engines.transformers_pipeline(out)


def listen(speech2text: Speech2Text, clips: Clips) -> list[str]:
    """Transcripts of the clips."""
    with tqdm(total=len(clips.utts), desc="Speech2Text", ncols=79) as bar:
        results = speech2text(clips.speech, clips.langs, progress=bar.update)
    return [result.text for result in results]


def rate(clips: Clips, texts: Sequence[str]) -> str:
    """The average over languages with its 95 % interval, as RESULTS.md has it."""
    said = map(languages.normalize, texts, clips.langs)
    row, _ = score(Decoded(clips.langs, clips.references, [*said]), SAMPLES, SEED)
    low, high = row["ci95"]
    return f"{row['avg_wer']:.1f} [{low:.1f}, {high:.1f}]"


def differences(clips: Clips, ours: Sequence[str], theirs: Sequence[str]) -> str:
    """How many transcripts are equal, and those that are not."""
    rows = zip(clips.utts, ours, theirs, strict=True)
    unequal = [row for row in rows if row[1] != row[2]]
    equal = len(clips.utts) - len(unequal)
    head = f"{equal} of {len(clips.utts)} transcripts are equal"
    lines = [f"{utt}: {mine!r} | {other!r}" for utt, mine, other in unequal]
    return "\n".join([head, *lines])


if __name__ == "__main__":
    cli.run(main)
