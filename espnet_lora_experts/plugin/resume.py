"""A training's files after it was killed: as its last whole checkpoint says they are.

ESPnet writes an epoch's ``checkpoint.pth`` in its place, then ``{n}epoch.pth`` and
links, then removes epochs that are no longer among the best. A kill, or a full disk,
may come at any of these moments.
"""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

import torch
from espnet2.train.reporter import Reporter

from espnet_lora_experts import atomic

CHECKPOINT, BEFORE = "checkpoint.pth", "checkpoint.before.pth"
"""The last epoch's, and that of the epoch before it while the next one is trained."""


def keep(folder: Path) -> None:
    """Keeps the last checkpoint, a whole one, until the next is."""
    if (folder / CHECKPOINT).exists():
        with atomic.file(folder / BEFORE) as temp:
            shutil.copyfile(folder / CHECKPOINT, temp)


def mend(folder: Path, options) -> int | None:
    """Makes a training's folder what it is right after an epoch.

    The last whole checkpoint takes its place; the epoch's file and the links that are
    missing are made of it, and epochs that are not among the best are removed. A folder
    where not one epoch was finished is left to start anew.

    Args:
        folder: Of the training.
        options: ESPnet's ``TrainerOptions``.

    Returns:
        The last epoch, if training was over with it (``patience``).
    """
    states = _last_whole(folder)
    if not isinstance(states, dict) or not {"model", "reporter"} <= set(states):
        return None  # resuming says what is wrong
    reporter = Reporter()
    reporter.load_state_dict(states["reporter"])
    epoch = reporter.get_epoch()
    path = _epoch(folder, epoch)
    if _read(path) is None:
        logging.warning(f"{path} is missing or broken; it is made of {CHECKPOINT}")
        with atomic.file(path) as temp:
            torch.save(states["model"], temp)
    _link(folder / "latest.pth", path)
    best = _link_best(folder, reporter, options)
    for old in range(1, epoch):
        if old not in best:
            _epoch(folder, old).unlink(missing_ok=True)
    stopping = options.early_stopping_criterion
    if options.patience is None or not reporter.has(*stopping[:2]):
        return None
    return epoch if reporter.check_early_stopping(options.patience, *stopping) else None


def _last_whole(folder: Path):
    last = folder / CHECKPOINT
    if (states := _read(last)) is not None:
        return states
    if (states := _read(folder / BEFORE)) is not None:
        logging.warning(f"{last} is missing or broken; resuming from {BEFORE}")
        with atomic.file(last) as temp:
            shutil.copyfile(folder / BEFORE, temp)
    elif last.exists() and not any(folder.glob("*epoch.pth")):
        logging.warning(f"{last} is half of the first epoch's; training starts anew")
        last.unlink()
    return states


def _read(path: Path):
    """What a file holds, None where it is missing or not whole."""
    try:
        return torch.load(path, map_location="cpu", weights_only=False, mmap=True)
    except Exception:  # a damaged file can end in any of them
        return None


def _link_best(folder: Path, reporter: Reporter, options) -> set[int]:
    """Links the best epochs; gives those to keep."""
    most = options.keep_nbest_models
    most = most if isinstance(most, int) else max(most, default=1)
    kept: set[int] = set()
    for phase, key, mode in options.best_model_criterion:
        if not reporter.has(phase, key):
            continue
        epochs = reporter.sort_epochs(phase, key, mode)
        kept |= set(epochs[:most])
        there = [path for e in epochs if (path := _epoch(folder, e)).exists()]
        if there:
            _link(folder / f"{phase}.{key}.best.pth", there[0])
    return kept


def _link(link: Path, path: Path) -> None:
    if not link.is_symlink() or os.readlink(link) != path.name:
        link.unlink(missing_ok=True)
        link.symlink_to(path.name)


def _epoch(folder: Path, epoch: int) -> Path:
    return folder / f"{epoch}epoch.pth"
