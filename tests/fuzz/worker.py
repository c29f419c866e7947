"""A process for the parsers: it has little memory, and may die."""

from __future__ import annotations

import logging
import multiprocessing
import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.fuzz.loop import Outcome, fuzz, limit_memory
from tests.fuzz.parsers import MAKERS


def outcomes(names: Sequence[str], *how) -> Iterator[Outcome]:
    """Fuzzes parsers one by one; a process that dies is followed by another.

    Args:
        names: Of the parsers.
        how: What :func:`~.loop.fuzz` takes after the folder.
    """
    left = [*names]
    while left:
        with tempfile.TemporaryDirectory(dir=memory_folder()) as place:
            for outcome in _by_process(left, Path(place), how):
                left.pop(0)
                yield outcome


def memory_folder() -> str | None:
    """Where files are made thousands of times; None where there is no such place."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _by_process(names: list[str], place: Path, how: tuple) -> Iterator[Outcome]:
    """Outcomes of a process, until it ends or dies."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    work = context.Process(target=_work, args=([*names], place, how, there))
    work.start()
    there.close()
    for name in [*names]:
        try:
            yield here.recv()
        except EOFError:
            work.join()
            case = {x.name: x.read_bytes() for x in place.rglob("*") if x.is_file()}
            outcome = Outcome(name)
            outcome.failed(f"the process ended with {work.exitcode}", "", case)
            yield outcome
            return
    work.join()


def _work(names: list[str], place: Path, how: tuple, pipe) -> None:
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # libraries of C write there too
        os.dup2(nowhere, stream)
    for name in names:
        parser = MAKERS[name]()
        limit_memory()
        folder = place / name
        folder.mkdir()
        pipe.send(fuzz(parser, folder, *how))
