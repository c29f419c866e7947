"""Real clips and models for the rows: the recipe's speech, ESPnet's own batches."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from bench.harness import Contest, Work
from espnet_lora_experts.experts.bank import lora_config
from espnet_lora_experts.experts.store import save_expert
from espnet_lora_experts.plugin.task import LoraExpertsTask
from espnet_lora_experts.report.kaldi import read_table
from espnet_lora_experts.whisper import hub
from espnet_lora_experts.whisper.audio import read_audio
from espnet_lora_experts.whisper.backbone import Backbone
from espnet_lora_experts.whisper.features import MARGIN
from espnet_lora_experts.whisper.precision import autocast_context
from espnet_lora_experts.whisper.prompt import Prompter

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "egs2/mini_multilingual/asr1"
LANGS = ("es", "fr", "ro", "ru", "ca", "bg", "be", "el")
BATCH_SAMPLES = 640_000


@dataclass(frozen=True)
class Clip:
    """One utterance."""

    utt: str
    lang: str
    text: str
    speech: np.ndarray = field(repr=False)


@dataclass(eq=False)
class World:
    """What the rows share.

    Attributes:
        backbone: Hub id or folder.
        device: ``cpu`` or ``cuda``.
        autocast: As in the models' configuration.
        folder: Holds the data, prepared on first use.
        download_dir: Holds the recipe's packages.
        student: Folder of a student for the rows that need a trained one.
    """

    backbone: str = "openai/whisper-tiny"
    device: str = "cpu"
    autocast: str = "none"
    folder: Path = RECIPE / "exp/bench"
    download_dir: Path = RECIPE / "downloads"
    student: Path | None = None

    @cached_property
    def data(self) -> Path:
        """A dump dir with 64 clips of each of eight languages, less what is dropped."""
        dump = self.folder / "dump"
        if not (dump / "utt2num_samples").exists():
            langs = " ".join(LANGS)
            raw = ["--langs", langs, "--download_dir", str(self.download_dir)]
            raw += ["--data_dir", str(self.folder / "data"), "--max_train", "64"]
            _python("local/mini_data.py", *raw)
            dirs = ["--in_dirs", f"{self.folder}/data/train", "--out_dirs", str(dump)]
            module = "espnet_lora_experts.bin.format_data"
            _python("-m", module, *dirs, "--langs", langs)
        return dump

    @cached_property
    def clips(self) -> list[Clip]:
        """All clips, sorted by utterance."""
        return read_clips(self.data)

    def pick(self, count: int, langs: Sequence[str] = LANGS, equal: bool = False):
        """Clips of some languages, equally many of each, from all over the corpus.

        Args:
            count: How many.
            langs: The languages.
            equal: Take the longest, cut to the length of the shortest of them.

        Raises:
            ValueError: A language has fewer clips.
        """
        each, clips = count // len(langs), []
        for lang in langs:
            own = [clip for clip in self.clips if clip.lang == lang]
            if len(own) < each:
                raise ValueError(
                    f"{self.folder} must hold {each} clips of {lang}, but has "
                    f"{len(own)}; remove it, and it is prepared anew"
                )
            if equal:
                clips += sorted(own, key=lambda clip: -len(clip.speech))[:each]
            else:
                clips += own[:: len(own) // each][:each]
        if equal:
            shortest = min(len(clip.speech) for clip in clips)
            clips = [Clip(c.utt, c.lang, c.text, c.speech[:shortest]) for c in clips]
        return clips

    def precision(self):
        """The precision of this run's products, as a context."""
        return autocast_context(self.autocast, self.device)

    @cached_property
    def prompter(self) -> Prompter:
        """The tokenizer."""
        return Prompter(hub.resolve(self.backbone))

    @cached_property
    def experts(self) -> dict[str, str]:
        """Folders of experts (rank 32, off zero) of the eight languages."""
        folder = Path(tempfile.mkdtemp(prefix="experts"))
        backbone = Backbone.from_pretrained(self.backbone)
        for seed, lang in enumerate(LANGS):
            backbone.bank.add(lang, lora_config(32), seed)
            shake(p for _, p in backbone.bank.parameters_of(lang))
            metadata = {"backbone_sha256": backbone.sha256}
            save_expert(backbone.bank, lang, folder / lang, self.backbone, metadata)
        return {lang: str(folder / lang) for lang in LANGS}

    def model(self, name: str, languages: Sequence[str] = LANGS, **conf):
        """A model as ESPnet's task builds it, in training mode."""
        torch.manual_seed(0)
        args = self._args
        args.model, args.model_conf = name, {"languages": list(languages), **conf}
        args.model_conf["autocast"] = self.autocast
        return LoraExpertsTask.build_model(args).train().to(self.device)

    @cached_property
    def tokens(self) -> Path:
        """The file with ESPnet's token list."""
        path = self.folder / "tokens.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(self.prompter.token_list()) + "\n", "utf-8")
        return path

    @cached_property
    def _args(self):
        given = ["--backbone", self.backbone, "--token_list", str(self.tokens)]
        given += ["--output_dir", str(self.folder), "--use_preprocessor", "true"]
        return LoraExpertsTask.get_parser().parse_args(given)

    def batches(self, clips: Sequence[Clip], mixed: bool = True) -> list[dict]:
        """ESPnet's batches by padded duration; one language each unless mixed."""
        order = sorted(clips, key=lambda c: ("" if mixed else c.lang, len(c.speech)))
        groups: list[list[Clip]] = [[]]
        for clip in order:
            group = [*groups[-1], clip]
            padded = len(group) * (len(clip.speech) + MARGIN)
            other = not mixed and groups[-1] and groups[-1][0].lang != clip.lang
            if groups[-1] and (padded > BATCH_SAMPLES or other):
                groups.append([clip])
            else:
                groups[-1] = group
        return [self.batch(group) for group in groups]

    def batch(self, clips: Sequence[Clip]) -> dict:
        """One batch through our preprocessor and ESPnet's collation."""
        process = LoraExpertsTask.build_preprocess_fn(self._args, train=False)
        merge = LoraExpertsTask.build_collate_fn(self._args, train=True)
        data = [
            (
                c.utt,
                process(c.utt, {"speech": c.speech, "text": c.text, "lang": c.lang}),
            )
            for c in clips
        ]
        _, batch = merge(data)
        return {k: v.to(self.device) for k, v in batch.items()}


def read_clips(folder: Path) -> list[Clip]:
    """The clips of a dump dir of the recipe, sorted by utterance."""
    names = ("wav.scp", "utt2lang", "text")
    paths, langs, texts = (read_table(folder / name) for name in names)
    return [
        Clip(utt, langs[utt], texts[utt], read_audio(RECIPE / path))
        for utt, path in sorted(paths.items())
    ]


def shake(parameters, scale: float = 0.01) -> None:
    """Moves parameters off zero, the same way each time."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in parameters:
            noise = torch.randn(parameter.shape, generator=generator)
            parameter += scale * noise.to(parameter.device)


def seconds(clips: Sequence[Clip]) -> float:
    """Seconds of audio."""
    return sum(len(clip.speech) for clip in clips) / 16_000


def contest(clips: Sequence[Clip], ours: Work, peer: Work) -> Contest:
    """Two ways to work on some clips."""
    return Contest(ours, peer, seconds(clips), about(clips))


def about(clips: Sequence[Clip]) -> str:
    """How many clips of what length."""
    return f"{len(clips)} clips, mean {seconds(clips) / len(clips):.1f} s"


def _python(*command: str) -> None:
    line = [sys.executable, *command]
    subprocess.run(line, cwd=RECIPE, check=True, stdout=sys.stderr)
