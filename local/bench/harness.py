"""Runs two things alternately and says how they compare."""

from __future__ import annotations

import ctypes
import gc
import resource
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, register_flop_formula

Work = Callable[[], Any]
"""Does the work once; may return the seconds that the part in question took."""


@dataclass
class Contest:
    """The same work done in two ways.

    Attributes:
        ours: Does it once.
        peer: Does it once in the other way.
        seconds: Seconds of audio in it.
        note: What the reader should know, for example clips and mean duration; a
            function is called after the rounds.
        counted: Whether operations can be counted: both run in torch.
    """

    ours: Work
    peer: Work
    seconds: float
    note: str | Callable[[], str] = ""
    counted: bool = True


@dataclass(frozen=True)
class Row:
    """One comparison of the table.

    Attributes:
        name: For ``--rows``.
        ours: What we do.
        peer: What the peer does.
        reach: The ratio to reach.
        saves: True: the ratio is peer / ours and should be at least ``reach``;
            False: it is ours / peer and should be at most ``reach``.
        make: Takes a :class:`~.world.World`, prepares the contest.
        student: Whether a trained student is needed.
        memory: Most peak memory in multiples of the peer's, where that is a goal.
    """

    name: str
    ours: str
    peer: str
    reach: float
    saves: bool
    make: Callable[[Any], Contest]
    student: bool = False
    memory: float = 0


ROWS: dict[str, Row] = {}


def row(
    name: str,
    ours: str,
    peer: str,
    *,
    faster: float = 0,
    dearer: float = 0,
    student: bool = False,
    memory: float = 0,
):
    """Registers a row: at least ``faster`` than the peer, or at most ``dearer``."""

    def register(make):
        reach = faster or dearer
        ROWS[name] = Row(name, ours, peer, reach, bool(faster), make, student, memory)
        return make

    return register


def compete(row: Row, contest: Contest, rounds: int) -> dict[str, Any]:
    """Times both alternately after a warm-up, then measures memory and counts."""
    works = {"ours": contest.ours, "peer": contest.peer}
    peaks = {who: peak_memory(work) for who, work in works.items()}  # warms up, too
    times: dict[str, list[float]] = {"ours": [], "peer": []}
    for _ in range(rounds):
        for who, work in works.items():
            times[who].append(timed(work))
    ratios = [
        peer / ours if row.saves else ours / peer
        for ours, peer in zip(times["ours"], times["peer"], strict=True)
    ]
    ratio = statistics.median(ratios)
    flops = {who: count(work) for who, work in works.items()} if contest.counted else {}
    note = contest.note if isinstance(contest.note, str) else contest.note()
    return {
        "row": row.name,
        "ours": row.ours,
        "peer": row.peer,
        "ratio": ratio,
        "spread": [min(ratios), max(ratios)],
        "reach": row.reach,
        "saves": row.saves,
        "reached": ratio >= row.reach if row.saves else ratio <= row.reach,
        "memory_reach": row.memory,
        "memory_reached": not row.memory or _ratio(peaks) <= row.memory,
        "counted": _counted(flops, row.saves),
        "audio_s_per_s": {
            who: contest.seconds / statistics.median(x) for who, x in times.items()
        },
        "peak_mib": peaks,
        "gflop": {who: x / 1e9 for who, x in flops.items()},
        "note": note,
    }


def _counted(flops: dict[str, int], saves: bool) -> float | None:
    if not all(flops.get(who) for who in ("ours", "peer")):
        return None
    ratio = flops["peer"] / flops["ours"]
    return ratio if saves else 1 / ratio


def _ratio(ours_and_peers: dict[str, float]) -> float:
    return ours_and_peers["ours"] / max(ours_and_peers["peer"], 1e-9)


def timed(work: Work) -> float:
    """Seconds of one run, or what it says that a part of it took."""
    gc.collect()
    start = time.perf_counter()
    said = work()
    synchronize()
    return said if isinstance(said, float) else time.perf_counter() - start


def synchronize() -> None:
    """Waits for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_memory(work: Work) -> float:
    """MiB that a run needs beyond what was held before it."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # gives back what is free
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = resident("VmRSS")
    work()
    return (resident("VmHWM") - before) / 2**10


def resident(name: str) -> int:
    """KiB, from the kernel."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@register_flop_formula(torch.ops.mkldnn._linear_pointwise)
def _linear_flop(x_shape, W_shape, *args, out_shape=None, **kwargs) -> int:
    return 2 * x_shape.numel() * W_shape[0]


def count(work: Work) -> int:
    """Floating-point operations of matrix products, convolutions and attention."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


HEAD = """\
| row | ours | peer | ratio [spread] | reach | counted | audio s/s | peak MiB | clips |
|---|---|---|---|---|---|---|---|---|"""


def table(results: list[dict[str, Any]]) -> str:
    """The results in Markdown; rows below reach are marked."""
    return "\n".join([HEAD, *map(line, results)])


def line(x: dict[str, Any]) -> str:
    """One result in Markdown."""
    sign = "≥" if x["saves"] else "≤"
    mark = "" if x["reached"] else " **below reach**"
    low, high = x["spread"]
    counted = "-" if x["counted"] is None else f"{x['counted']:.2f}"
    speed = " / ".join(f"{x['audio_s_per_s'][who]:.0f}" for who in ("ours", "peer"))
    peak = " / ".join(f"{x['peak_mib'][who]:.0f}" for who in ("ours", "peer"))
    if x["memory_reach"]:
        peak += f" (reach ≤ {x['memory_reach']} times)"
        peak += "" if x["memory_reached"] else " **below reach**"
    return (
        f"| {x['row']} | {x['ours']} | {x['peer']} | {x['ratio']:.2f} "
        f"[{low:.2f}, {high:.2f}]{mark} | {sign} {x['reach']} | {counted} "
        f"| {speed} | {peak} | {x['note']} |"
    )
