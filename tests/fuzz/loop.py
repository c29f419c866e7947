"""The loop: one parser in a process of its own, with little memory and time."""

from __future__ import annotations

import os
import random
import resource
import signal
import tempfile
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.mutate import Case, mutated
from tests.fuzz.parsers import Parser

SECONDS = 10.0
"""Of computing, after which an input counts as a hang."""
MEMORY = 2**31
"""Bytes that a parser may reserve beside what the process has when it starts."""
MOST_KEPT = 500
"""Cases that reached something new, which others are made of."""


class Hang(BaseException):
    """An input took too long."""


@dataclass
class Outcome:
    """What a parser did with its inputs."""

    parser: str
    inputs: int = 0
    accepted: int = 0
    places: int = 0
    seconds: float = 0.0
    grown: int = 0
    """MiB that the process' largest memory grew by."""
    crashes: list[tuple[str, str, Case]] = field(default_factory=list)
    hangs: list[Case] = field(default_factory=list)


def fuzz(parser: Parser, runs: int, seed: int, limit: float = 1e9) -> Outcome:
    """Gives a parser its seeds and then changed ones.

    Any bytes may give a value, or a ValueError or FileNotFoundError that names a file;
    all else is a crash. Errors from a new place make a case worth changing further.

    Args:
        parser: The parser.
        runs: How many inputs.
        seed: Of the changes.
        limit: Seconds after which it ends early.
    """
    draw, outcome = random.Random(f"{seed} {parser.name}"), Outcome(parser.name)
    corpus, seen, begin = [*parser.seeds], set(), time.monotonic()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory(dir=_memory_folder()) as place:
        for number in range(runs):
            if time.monotonic() - begin > limit:
                break
            fresh = number < len(parser.seeds)
            case = parser.seeds[number] if fresh else mutated(draw, corpus)
            reached = _one(parser, case, Path(place), outcome)
            if reached not in seen and len(corpus) < MOST_KEPT:
                seen.add(reached)
                corpus.append(case)
    outcome.places, outcome.seconds = len(seen), time.monotonic() - begin
    now = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcome.grown = (now - peak) // 1024
    return outcome


def _memory_folder() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _one(parser: Parser, case: Case, place: Path, outcome: Outcome) -> object:
    """Gives a parser one case; returns where it ended."""
    write(case, place)
    outcome.inputs += 1
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        parser.read(place)
        outcome.accepted += 1
        return "accepted"
    except Hang:
        outcome.hangs.append(case)
        return "hang"
    except Exception as error:
        reason = fault(error, place, parser)
        if reason:
            outcome.crashes.append((reason, f"{error}"[:200], case))
        frames = traceback.extract_tb(error.__traceback__)
        return tuple((frame.filename, frame.lineno) for frame in frames)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def write(case: Case, place: Path) -> None:
    """Writes the files of a case, and removes those of the one before."""
    for old in place.iterdir():
        if old.is_file() and old.name not in case:
            old.unlink()
    for name, content in case.items():
        (place / name).write_bytes(content)


def fault(error: Exception, place: Path, parser: Parser) -> str:
    """What is wrong with an error; "" when it is as it should be."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}"
    if not isinstance(error, ValueError | FileNotFoundError):
        return where
    if parser.named and str(place) not in str(error):
        return f"{where} names no file"
    return ""


def limit_process() -> None:
    """Bounds the memory of this process, and lets long inputs end."""

    def stop(*_):
        raise Hang

    signal.signal(signal.SIGPROF, stop)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
