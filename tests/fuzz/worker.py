"""A process for each parser: it has little memory, and may die."""

from __future__ import annotations

import logging
import multiprocessing
import os
import warnings

from tests.fuzz.loop import Outcome, fuzz, limit_process
from tests.fuzz.parsers import MAKERS


def in_process(name: str, *how) -> Outcome:
    """Fuzzes one parser; ``how`` is what :func:`~.loop.fuzz` takes after it."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(name, how, there))
    process.start()
    there.close()
    try:
        outcome = here.recv()
    except EOFError:
        outcome = Outcome(name)
    process.join()
    if process.exitcode:
        outcome.crashes.append((f"the process ended with {process.exitcode}", "", {}))
    return outcome


def _work(name: str, how: tuple, pipe) -> None:
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    parser = MAKERS[name]()
    limit_process()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # libraries of C write there too
        os.dup2(nowhere, stream)
    pipe.send(fuzz(parser, *how))
