"""Training with two processes of one thread against one: ESPnet's trainer, torchrun."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from bench.world import LANGS, RECIPE, ROOT, World

TABLES = (("wav.scp", "speech", "sound"), ("text", "text", "text"))
TABLES += (("utt2lang", "lang", "text"),)
VALID = 16
"""Clips of the validation set, which is not timed."""


def epoch_seconds(world: World, processes: int, epochs: int) -> float:
    """Median seconds of an epoch over the benchmark's clips, the first left out."""
    with tempfile.TemporaryDirectory(prefix="ranks") as folder:
        runner = ["-m", "torch.distributed.run", "--standalone"]
        runner += ["--nproc_per_node", str(processes)]
        module = ["-m", "espnet_lora_experts.bin.train"]
        command = [*runner, *module] if processes > 1 else module
        done = subprocess.run(
            [sys.executable, *command, *options(world, Path(folder), epochs + 1)],
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
        return statistics.median(times[1:])


def options(world: World, folder: Path, epochs: int) -> list[str]:
    """Those of the joint experts' training, without processes that load data."""
    given = ["--config", str(ROOT / "conf/train_expert.yaml")]
    given += ["--backbone", world.backbone, "--token_list", str(world.tokens)]
    given += ["--model_conf", f"languages={list(LANGS)}", "--output_dir", str(folder)]
    given += ["--model_conf", f"autocast={world.autocast}", "--num_workers", "0"]
    given += ["--max_epoch", str(epochs), "--use_preprocessor", "true", "--ngpu", "0"]
    given += ["--use_matplotlib", "false", "--use_tensorboard", "false"]
    given += ["--multiprocessing_distributed", "false", "--dist_backend", "gloo"]
    for part, most in (("train", None), ("valid", VALID)):
        (folder / part).mkdir()
        for name, *rest in (*TABLES, ("utt2num_samples", "", "")):
            lines = (world.data / name).read_text("utf-8").splitlines(keepends=True)
            path = folder / part / name
            path.write_text("".join(lines[:most]), "utf-8")
            if rest[0]:
                table = ",".join([str(path), *rest])
                given += [f"--{part}_data_path_and_name_and_type", table]
            else:
                given += [f"--{part}_shape_file", str(path)]
    return given
