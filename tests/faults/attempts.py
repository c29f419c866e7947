"""A job in a forked process that has all imports already: run, killed, starved."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink"}
"""Python's audit events of changes in a file system, beside opening for writing."""
LONGEST = 3600.0
"""Seconds of a job, on a machine so busy that it may be stopped for a while."""


@dataclass(frozen=True)
class Fault:
    """What happens to a process, one of these.

    Attributes:
        event: It is killed before the change of that number in the file system.
        seconds: It is killed after these.
        bytes: It is killed inside of the write that makes a file that long.
    """

    event: int | None = None
    seconds: float | None = None
    bytes: int | None = None


@dataclass(frozen=True)
class Outcome:
    """How a process ended; of a whole one, what its job is like."""

    status: int
    facts: dict

    @property
    def killed(self) -> bool:
        return self.status in (-signal.SIGKILL, -signal.SIGXFSZ)


def attempt(
    job: Callable[[], object],
    work: Path,
    log: Path,
    fault: Fault | None = None,
    after: Callable[[], dict] = dict,
) -> Outcome:
    """Runs a job in a folder, in a process of its own.

    Args:
        job: The job.
        work: Its working folder.
        log: What it says goes there.
        fault: What happens to it.
        after: Gives facts of a job that was done, in the same process.
    """
    fault = fault or Fault()
    facts = log.with_suffix(".json")
    facts.unlink(missing_ok=True)
    begin = time.monotonic()
    process = os.fork()
    if not process:
        _child(job, work, log, fault, after)
    limit = LONGEST if fault.seconds is None else fault.seconds
    status = _wait(process, begin + limit)
    if status is None:
        os.kill(process, signal.SIGKILL)
        status = os.waitpid(process, 0)[1]
    code = os.waitstatus_to_exitcode(status)
    told = json.loads(facts.read_text()) if code == 0 else {}
    return Outcome(code, {**told, "seconds": time.monotonic() - begin})


def _wait(process: int, until: float) -> int | None:
    while time.monotonic() < until:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return status
        time.sleep(0.002)
    return None


def _child(job, work: Path, log: Path, fault: Fault, after) -> None:
    """Never returns."""
    try:
        said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(said, 1)
        os.dup2(said, 2)
        os.chdir(work)
        count = _count_changes(fault.event)
        if fault.bytes is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (fault.bytes, -1))
        job()
        changes = count()
        if fault.bytes is None:
            facts = json.dumps({**after(), "changes": changes})
            log.with_suffix(".json").write_text(facts)
        else:
            log.with_suffix(".json").write_text("{}")
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def _count_changes(last: int | None) -> Callable[[], int]:
    """Counts changes in the file system, and ends the process before one of them."""
    done = 0

    def hear(event: str, args: tuple) -> None:
        nonlocal done
        writes = event == "open" and bool((args[2] or 0) & (os.O_WRONLY | os.O_RDWR))
        if writes or event in CHANGES:
            if done == last:
                os.kill(os.getpid(), signal.SIGKILL)
            done += 1

    sys.addaudithook(hear)
    return lambda: done


def draw(rng: random.Random, facts: dict) -> Fault:
    """A fault somewhere in a job that, undisturbed, is like its ``facts``."""
    kind = rng.randrange(3)
    if kind == 0:
        return Fault(event=rng.randrange(facts["changes"]))
    if kind == 1:
        return Fault(seconds=rng.random() * facts["seconds"])
    return Fault(bytes=int(rng.random() * facts["largest"]))


@contextmanager
def disk(folder: Path):
    """A disk of its own at a folder; it may be full, or read only.

    Gives a function that takes the most bytes it may hold and whether it may be
    written; None where this process may mount nothing.
    """
    folder.mkdir()
    if _mount("-t", "tmpfs", "-o", "size=1g", "tmpfs", str(folder)):
        yield None
        return
    try:
        yield lambda size, mode="rw": _mount(
            "-o", f"remount,size={size},{mode}", str(folder)
        )
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


def _mount(*words: str) -> int:
    command = ["mount", *words]
    try:
        return subprocess.run(command, check=False, capture_output=True).returncode
    except FileNotFoundError:
        return 1
