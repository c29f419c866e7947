"""The long jobs, on a corpus of noise and a tiny random Whisper of the real formats.

A job runs in a working folder of its own and writes there, by relative paths, so that
its files are the same wherever that folder is. What it reads lies in the ``world``.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import yaml

from espnet_lora_experts.bin import backbone, decode, export, format_data, score, train
from espnet_lora_experts.plugin import packing
from tests import conftest

sys.path.append(str(Path(__file__).resolve().parents[2] / "egs2/TEMPLATE/asr1/local"))
import fetch  # of the recipes for corpora

ROOT = Path(__file__).resolve().parents[2]

LANGS = ["es", "ja", "ru"]
TEXTS = {"es": "uno dos tres", "ja": "いち、に", "ru": "да, нет"}
CLIPS = 4
"""Of each language."""
SYSTEMS = "vanilla mono mole"


@dataclass(frozen=True)
class Job:
    """A job.

    Attributes:
        run: Does it, in the working folder; gets the world.
        prepare: Puts into a new working folder what the job adds files to.
    """

    run: Callable[[Path], object]
    prepare: Callable[[Path, Path], object] = lambda world, work: None


def download(world: Path) -> None:
    """An archive from a server, checked, unpacked."""
    url = (world / "server/url").read_text()
    archive = world / "server/corpus.tar.gz"
    md5 = hashlib.md5(archive.read_bytes(), usedforsecurity=False).hexdigest()
    fetch.provide(Path("corpus"), "corpus", Path("corpus.tar.gz"), url, md5)


def make_dump(world: Path) -> None:
    """Stages 2 and 3: dump and token list."""
    sets = {"--in_dirs": world / "data/test", "--out_dirs": "dump/raw/test"}
    words = [str(word) for pair in sets.items() for word in pair]
    format_data.main([*words, "--langs", " ".join(LANGS)])
    model = ["--backbone", str(world / "whisper"), "--token_list", "dump/tokens.txt"]
    backbone.main([*model, "--langs", " ".join(LANGS), "--expdir", "exp"])


def training(name: str, model: str, **conf) -> Callable[[Path], None]:
    """Stages 5 to 8: three epochs of two batches."""

    def run(world: Path) -> None:
        if model in ("lora_mole", "lora_distill"):
            conf["experts"] = {x: f"{world}/exp/mono/experts/{x}" for x in LANGS}
        options = {
            "model": model,
            "model_conf": {"languages": LANGS, **conf},
            "optim": "adamw",
            "optim_conf": {"lr": 0.01},
            "max_epoch": 3,
            "num_iters_per_epoch": 2,
            "batch_bins": 140_000,
            "num_workers": 0,
            "best_model_criterion": [["valid", "loss", "min"]],
            "keep_nbest_models": 1,
            "use_preprocessor": True,
            "use_matplotlib": False,
            "use_tensorboard": False,
            "resume": True,
            "backbone": str(world / "whisper"),
            "token_list": str(world / "dump/tokens.txt"),
            "output_dir": f"exp/{name}",
        }
        config = Path("train.yaml")
        config.write_text(yaml.safe_dump(options))
        cmd = ["--config", str(config), "--ngpu", "0"]
        dump = world / "dump/raw/test"
        for part in ("train", "valid"):
            tables = ("wav.scp,speech,sound", "text,text,text", "utt2lang,lang,text")
            for table in tables:
                cmd += [f"--{part}_data_path_and_name_and_type", str(dump / table)]
            cmd += [f"--{part}_shape_file", str(dump / "utt2num_samples")]
        train.main(cmd)

    return run


def decoding(world: Path) -> None:
    """Stage 9, all systems."""
    paths = ["--expdir", "exp", "--data_root", str(world / "dump/raw")]
    what = ["--systems", SYSTEMS, "--langs", " ".join(LANGS), "--max_tokens", "8"]
    decode.main([*paths, *what, "--backbone", str(world / "whisper")])


def scoring(world: Path) -> None:
    """Stage 10."""
    paths = ["--expdir", "exp", "--data_root", str(world / "dump/raw")]
    more = ["--samples", "20", "--output", "exp", "--baseline", "mono"]
    score.main([*paths, "--systems", SYSTEMS, *more])


def exporting(world: Path) -> None:
    """Stage 12: one file, one folder, and one of experts."""
    mono = str(world / "exp/mono")
    for to, out, more in (
        ("ggml", "export/es.bin", ["--lang", "es"]),
        ("huggingface", "export/ru", ["--lang", "ru"]),
        ("huggingface", "export/experts", ["--with_backbone"]),
    ):
        export.main([mono, "--to", to, out, "--force", *more])


def pack(world: Path) -> None:
    """ESPnet's packing of a MoLE with its experts."""
    model = {"asr_model_file": Path("exp/mole/valid.loss.best.pth")}
    config = {"asr_train_config": Path("exp/mole/config.yaml")}
    packing.pack(model, config, "exp/mole.zip")


def given(*names: str) -> Callable[[Path, Path], None]:
    """The dump, and systems of the world to which a job adds files."""

    def prepare(world: Path, work: Path) -> None:
        (work / "dump").symlink_to(world / "dump")
        for name in names:
            shutil.copytree(world / "exp" / name, work / "exp" / name, symlinks=True)

    return prepare


JOBS = {
    "download": Job(download),
    "format": Job(make_dump),
    "expert training": Job(
        training("es", "lora_expert", r=2, languages=["es"]), given()
    ),
    "joint training": Job(training("mono", "lora_expert", r=2), given()),
    "fusion": Job(training("mole", "lora_mole", merged_layers=1), given()),
    "distillation": Job(training("kd", "lora_distill", r=4), given()),
    "decoding": Job(decoding, given("vanilla", "mono", "mole")),
    "scoring": Job(scoring, given("vanilla", "mono", "mole")),
    "export": Job(exporting),
    "pack": Job(pack, given("mole")),
}
MAKES = ("format", "joint training", "fusion", "decoding")
"""Jobs whose undisturbed outcome is what other jobs read."""


def make_world(world: Path) -> None:
    """What the first jobs read: speech of noise, a Whisper, a server's archive."""
    _make_whisper(world / "whisper")
    data = world / "data/test"
    data.mkdir(parents=True)
    rng = np.random.RandomState(0)
    tables: dict[str, list[str]] = {"wav.scp": [], "text": [], "utt2lang": []}
    for lang in LANGS:
        for i in range(CLIPS):
            path = data / f"{lang}{i}.wav"
            soundfile.write(path, rng.uniform(-0.5, 0.5, 9_000 + 1_000 * i), 16_000)
            for name, value in zip(tables, (path, TEXTS[lang], lang), strict=True):
                tables[name].append(f"{lang}{i} {value}\n")
    for name, lines in tables.items():
        (data / name).write_text("".join(lines), encoding="utf-8")
    (world / "server").mkdir()
    with tarfile.open(world / "server/corpus.tar.gz", "w:gz") as tar:
        tar.add(data, arcname="corpus")


def _make_whisper(folder: Path) -> None:
    """The Whisper of the unit tests, with positions for 30 s."""
    config = conftest.tiny_config(max_source_positions=1500)
    conftest.random_whisper(config).save_pretrained(folder)
    conftest.save_processor(folder)
