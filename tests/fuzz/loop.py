"""The loop: a parser gets its seeds, then what was made of what got furthest."""

from __future__ import annotations

import random
import resource
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import NamedTuple

from tests.fuzz.mutate import Case, first, mutated
from tests.fuzz.parsers import ROOT, Parser

SECONDS = 10.0
"""Of computing, after which an input counts as a hang."""
MEMORY = 2**31
"""Bytes that a parser may reserve beside what the process has when it starts."""
Folders = tuple[str, ...]
OURS = tuple(f"{ROOT}/{folder}/" for folder in ("espnet_lora_experts", "egs2"))
TRACED, EVERY = 5000, 10
"""Of how many inputs the lines are told, which takes as long as reading them; then of
which part."""
MOST_KEPT = 500
"""Cases that reached something new, which others are made of."""


class Line(NamedTuple):
    """A line of our code."""

    code: CodeType
    number: int


class Hang(BaseException):
    """An input took too long."""


@dataclass
class Outcome:
    """What a parser did with its inputs.

    Attributes:
        parser: Its name.
        inputs: How many it was given.
        accepted: How many it took.
        lines: How many lines of our code ran.
        places: Different ways in which errors came about.
        seconds: Of computing.
        grown: MiB that the process' largest memory grew by.
        hangs: How many inputs took too long.
        crashes: How many failed otherwise.
        failures: For each thing that went wrong (a hang, an error's type and place) the
            text and the input of the first time.
    """

    parser: str
    inputs: int = 0
    accepted: int = 0
    lines: int = 0
    places: int = 0
    seconds: float = 0.0
    grown: int = 0
    hangs: int = 0
    crashes: int = 0
    failures: dict[str, tuple[str, Case]] = field(default_factory=dict)

    def failed(self, what: str, text: str, case: Case) -> None:
        """Counts a failure; what is "hang" for one."""
        self.hangs += what == "hang"
        self.crashes += what != "hang"
        self.failures.setdefault(what, (text, case))


def fuzz(
    parser: Parser, place: Path, runs: int, seed: int, limit: float = 1e9
) -> Outcome:
    """Gives a parser its seeds and then changed ones.

    Any bytes may give a value, or a ValueError or FileNotFoundError that names a file;
    all else is a failure. New lines of ours, or an error that came about in a new way,
    make a case worth changing further.

    Args:
        parser: The parser.
        place: An empty folder, where the input stays of which the process dies.
        runs: How many inputs.
        seed: Of the changes.
        limit: Seconds of computing after which it ends early.
    """
    draw, outcome = random.Random(f"{seed} {parser.name}"), Outcome(parser.name)
    corpus, seen, begin = [*parser.seeds], set(), time.process_time()
    fresh = first(draw, parser.seeds)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    signal.signal(signal.SIGPROF, _stop)
    for number in range(runs):
        if time.process_time() - begin > limit:
            break
        case = next(fresh, None) or mutated(draw, corpus)
        traced = OURS if number < TRACED or number % EVERY == 0 else None
        new = _one(parser, case, place, outcome, traced) - seen
        seen |= new
        if new and len(corpus) < MOST_KEPT:
            corpus.append(case)
    outcome.lines = sum(isinstance(mark, Line) for mark in seen)
    outcome.places = len(seen) - outcome.lines
    outcome.seconds = time.process_time() - begin
    now = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcome.grown = (now - peak) // 1024
    return outcome


def _stop(*_) -> None:
    raise Hang


def _one(
    parser: Parser, case: Case, place: Path, outcome: Outcome, traced: Folders | None
) -> set[object]:
    """Gives a parser one case; returns the lines that ran, and how it failed."""
    write(case, place)
    outcome.inputs += 1
    reached: set[object] = set()
    _allow(SECONDS)
    try:
        with lines(traced, reached) if traced else nullcontext():
            parser.read(place)
        outcome.accepted += 1
    except Hang:
        outcome.failed("hang", "", case)
    except Exception as error:  # what may be wrong with it, fault tells
        if what := fault(error, place, parser):
            outcome.failed(what, f"{error}"[:200], case)
        reached.add(_places(error))
    finally:
        _allow(0)
    return reached


def _allow(seconds: float) -> None:
    """Time to compute, after which Hang is raised; later the process ends.

    The latter where code in C does not return; 0 takes both back.
    """
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_VIRTUAL, 3 * seconds)


@contextmanager
def lines(folders: Folders, found: set[object]) -> Iterator[None]:
    """Adds the lines of code in some folders that run meanwhile."""

    def inside(frame: FrameType, event: str, _):
        found.add(Line(frame.f_code, frame.f_lineno))
        return inside

    def enter(frame: FrameType, *_):
        return inside if frame.f_code.co_filename.startswith(folders) else None

    sys.settrace(enter)
    try:
        yield
    finally:
        sys.settrace(None)


def _places(error: BaseException | None) -> tuple[object, ...]:
    """Lines of code that an error, and those it came of, went through."""
    found: list[object] = []
    while error is not None:
        found.append(type(error))
        step = error.__traceback__
        while step is not None:
            found.append((step.tb_frame.f_code, step.tb_lineno))
            step = step.tb_next
        error = error.__cause__ or error.__context__
    return tuple(found)


def write(case: Case, place: Path) -> None:
    """Writes the files of a case, and removes those of the one before."""
    for old in place.iterdir():
        if old.is_file() and old.name not in case:
            old.unlink()
    for name, content in case.items():
        (place / name).write_bytes(content)


def fault(error: Exception, place: Path, parser: Parser) -> str:
    """What is wrong with an error; "" when it is as it should be."""
    kind = isinstance(error, ValueError | FileNotFoundError)
    named = not parser.named or str(place) in str(error)
    if kind and named:
        return ""
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}"
    return f"{where} names no file" if kind else where


def limit_memory() -> None:
    """Bounds what this process may reserve from now on."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(
        resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1])
    )
