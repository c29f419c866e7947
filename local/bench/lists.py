"""What listed utterances cost before one is heard: time to prepare, memory to train."""

from __future__ import annotations

import gc
import logging
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import soundfile
from espnet2.train.dataset import ESPnetDataset
from espnet2.train.distributed_utils import DistributedOption

from bench.harness import peak_memory, resident
from bench.world import BATCH_SAMPLES, LANGS, World
from espnet_lora_experts.bin import format_data
from espnet_lora_experts.plugin.task import LoraExpertsTask

DATA = (("wav.scp", "speech", "sound"), ("text", "text", "text"))
DATA += (("utt2lang", "lang", "text"),)
LETTERS = 50
"""Of each text."""


def write_lists(folder: Path, clip: Path, count: int) -> None:
    """A data dir of ``count`` utterances in eight languages, all of one clip."""
    folder.mkdir(parents=True)
    rng = np.random.RandomState(0)
    lengths = rng.randint(16_000, 10 * 16_000, count)
    text = ("una frase como las que se dicen cada día " * 2)[:LETTERS]
    rows = [f"speaker{i % 1000:04}-{i:08}" for i in range(count)]
    values: dict[str, Callable[[int], object]] = {
        "wav.scp": lambda i: clip,
        "text": lambda i: f"{i:08} {text}",
        "utt2lang": lambda i: LANGS[i % len(LANGS)],
        "utt2spk": lambda i: f"speaker{i % 1000:04}",
        "utt2num_samples": lambda i: lengths[i],
    }
    for name, value in values.items():
        with (folder / name).open("w", encoding="utf-8") as file:
            file.writelines(f"{utt} {value(i)}\n" for i, utt in enumerate(rows))


def in_new_process(work: Callable, *args):
    """The work's result, from a fork of this process: no other work is in it."""
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:
        return pool.submit(work, *args).result()


def prepare(folder: Path) -> dict[str, float]:
    """CPU seconds of stage 2 (but for the audio itself) and of stage 4's check."""
    logging.disable(logging.WARNING)
    format_data.convert_audio = lambda source, path: 32_000  # type: ignore[assignment]
    langs, dump = " ".join(LANGS), folder.with_name("dump")
    given = ["--in_dirs", str(folder), "--out_dirs", str(dump), "--langs", langs]
    times = {"format": _seconds(lambda: format_data.main(given))}
    check = ["--check_dirs", str(folder)]
    return {**times, "check": _seconds(lambda: format_data.main(check))}


def train(folder: Path, backbone: str, tokens: str) -> dict[str, float]:
    """CPU seconds until the first epoch's batches are there, and bytes of memory."""
    logging.disable(logging.WARNING)
    given = ["--backbone", backbone, "--token_list", tokens, "--num_workers", "0"]
    given += ["--output_dir", str(folder), "--use_preprocessor", "true"]
    given += ["--batch_bins", str(BATCH_SAMPLES)]
    for name, *rest in DATA:
        table = ",".join([f"{folder}/{name}", *rest])
        given += ["--train_data_path_and_name_and_type", table]
    given += ["--train_shape_file", f"{folder}/utt2num_samples"]
    args = LoraExpertsTask.get_parser().parse_args(given)
    args.model_conf = {"languages": [*LANGS]}
    held, took = [], {}

    def work():
        option = DistributedOption()
        factory = LoraExpertsTask.build_iter_factory(args, option, mode="train")
        held.append(factory.build_iter(1))

    gc.collect()
    before = resident("VmRSS")
    peak = peak_memory(lambda: took.update(batches=_seconds(work))) * 2**20
    gc.collect()
    now = (resident("VmRSS") - before) * 2**10
    return {**took, "peak": peak, "held": now}


def espnets_tables(folder: Path) -> float:
    """Bytes of ESPnet's own dataset."""
    before = resident("VmRSS")
    data = [(f"{folder}/{name}", *rest) for name, *rest in DATA]
    dataset = ESPnetDataset(data, preprocess=lambda utt, data: data)
    return (resident("VmRSS") - before) * 2**10 if dataset else 0.0


def _seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def measure(world: World, count: int) -> dict[str, float]:
    """All of it, for so many utterances."""
    top = Path(tempfile.mkdtemp(prefix="lists"))
    clip = top / ("a" * 40) / "clip.flac"  # as long a path as others have
    clip.parent.mkdir()
    soundfile.write(clip, np.zeros(16_000), 16_000)
    write_lists(top / "data", clip, count)
    try:
        return {
            **in_new_process(prepare, top / "data"),
            **in_new_process(train, top / "data", world.backbone, str(world.tokens)),
            "espnet": in_new_process(espnets_tables, top / "data"),
        }
    finally:
        shutil.rmtree(top)
