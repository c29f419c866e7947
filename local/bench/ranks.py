"""Training with two processes of one thread against one: ESPnet's trainer, torchrun."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from bench.world import LANGS, RECIPE, ROOT, Clip, World
from espnet_lora_experts.report.kaldi import read_table, write_table

TABLES = (("wav.scp", "speech", "sound"), ("text", "text", "text"))
TABLES += (("utt2lang", "lang", "text"),)
VALID = 16
"""Clips of the validation set, which is not timed."""


def epoch_seconds(
    world: World, config: str, clips: Sequence[Clip], processes: int, epochs: int
) -> list[float]:
    """Seconds of each epoch over some clips, one more at the start left out.

    Epoch for epoch the batches are those of any other number of processes.

    Args:
        world: Whisper and the recipe's clips.
        config: One of conf/, of a system that needs no other.
        clips: To train on.
        processes: With one thread each.
        epochs: How many to time.

    Raises:
        RuntimeError: The training failed.
    """
    with tempfile.TemporaryDirectory(prefix="ranks") as folder:
        runner = ["-m", "torch.distributed.run", "--standalone"]
        runner += ["--nproc_per_node", str(processes)]
        module = ["-m", "espnet_lora_experts.bin.train"]
        command = [*runner, *module] if processes > 1 else module
        given = options(world, config, clips, Path(folder), epochs)
        done = subprocess.run(
            [sys.executable, *command, *given],
            cwd=RECIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"the training must end well: {done.stderr[-2000:]}")
        path = Path(folder) / "checkpoint.pth"
        stats = torch.load(path, weights_only=False)["reporter"]["stats"]
        times = [stats[i]["train"]["time"].total_seconds() for i in sorted(stats)]
        return times[1:]


def options(
    world: World, config: str, clips: Sequence[Clip], folder: Path, epochs: int
) -> list[str]:
    """Those of a training, without processes that load data."""
    given = ["--config", str(ROOT / "conf" / config)]
    given += ["--backbone", world.backbone, "--token_list", str(world.tokens)]
    given += ["--model_conf", f"languages={list(LANGS)}", "--output_dir", str(folder)]
    given += ["--model_conf", f"autocast={world.autocast}", "--num_workers", "0"]
    given += ["--max_epoch", str(epochs + 1), "--use_preprocessor", "true"]
    given += ["--use_matplotlib", "false", "--use_tensorboard", "false"]
    given += ["--ngpu", "0"]
    given += ["--multiprocessing_distributed", "false", "--dist_backend", "gloo"]
    wanted = {clip.utt for clip in clips}
    for part, most in (("train", None), ("valid", VALID)):
        (folder / part).mkdir()
        for name, *rest in (*TABLES, ("utt2num_samples", "", "")):
            rows = read_table(world.data / name).items()
            own = {utt: value for utt, value in rows if utt in wanted}
            path = folder / part / name
            write_table(path, dict(list(own.items())[:most]))
            if rest[0]:
                table = ",".join([str(path), *rest])
                given += [f"--{part}_data_path_and_name_and_type", table]
            else:
                given += [f"--{part}_shape_file", str(path)]
    return given
