"""Sweeps: the lines of their files, and a table of what the variants gave.

A line of a file is ``SYSTEM TAG OPTIONS`` or ``SYSTEM``, with text after a ``#`` that
says what it is; the first line that is all comment is the title. sweep.sh reads it too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from espnet_lora_experts.report.tables import markdown, number, with_interval

HEAD = ("system", "what", "given [95 %]", "p", "not given [95 %]", "p", "LID %")
HEAD += ("steps", "p against")
MODES = ("aware", "agnostic")
NOTE = (
    "WER in %, the language given and not, averaged over languages; brackets: 95 % "
    "bootstrap intervals; p: paired bootstrap against the system of the last column, "
    "not corrected for the number of comparisons."
)


@dataclass(frozen=True)
class Sweep:
    """What a sweep's file says.

    Attributes:
        title: What is varied.
        what: What each line's system is, by its name.
    """

    title: str
    what: Mapping[str, str]


def read_sweep(text: str) -> Sweep:
    """Reads a sweep's file.

    Example:
        >>> sweep = read_sweep("# Depth.\\nmole L1_1 --model_conf merged_layers=1")
        >>> sweep.title, sweep.what
        ('Depth.', {'mole_L1_1': 'merged_layers=1'})
    """
    title, what = "", {}
    for line in text.splitlines():
        words, _, comment = line.partition("#")
        if not words.strip():
            title = title or comment.strip()
            continue
        system, tag, options = (*words.split(maxsplit=2), "", "")[:3]
        plain = re.sub(r"--\w+_conf\s+", "", options).strip()
        what[f"{system}_{tag}" if tag else system] = comment.strip() or plain
    return Sweep(title, what)


def table(sweep: Sweep, results: Mapping[str, Any]) -> str:
    """The sweep as Markdown: title and a row for each system.

    Args:
        sweep: Its file.
        results: What the comparison gave, see :mod:`.results`.
    """
    systems = results["systems"]
    rows = [
        [name, sweep.what.get(name, "the default"), *_cells(name, systems)]
        for name in systems
    ]
    title = sweep.title.rstrip(".")
    utterances = sum(results["meta"]["utterances"].values())
    return f"{title} ({utterances} utterances):\n\n{markdown(HEAD, rows)}\n"


def _cells(name: str, systems: Mapping[str, Any]) -> list[str]:
    row, other = systems[name], reference(name, systems)
    cells = []
    for scores in (row.get(mode) for mode in MODES):
        wer = with_interval(scores["avg_wer"], scores["ci95"]) if scores else "-"
        p = scores.get(f"p_vs_{other}") if scores else None
        cells += [wer, "" if p is None else number(p, 3)]
    lid = row.get("agnostic", {}).get("lid_acc")
    return [*cells, number(lid, 1), f"{row['steps']:,}", other]


def reference(name: str, systems: Mapping[str, Any]) -> str:
    """The system that another one's p-values compare with; "" for none.

    The pooled LoRA of the same tag (``mono_n_60``: ``multi_n_60``), else the system
    without tag or way (``mole_L1_25``, ``mole@top2``: ``mole``), else the pooled LoRA.

    Example:
        >>> names = dict.fromkeys(["multi", "mole", "mole_L1_25", "multi_n_60"])
        >>> [reference(x, names) for x in ("mole_L1_25", "mole", "mono_n_60", "multi")]
        ['mole', 'multi', 'multi_n_60', '']
    """
    base = name.partition("@")[0]
    known = [x for x in systems if f"{base}_".startswith(f"{x}_") and x != name]
    tag = base.partition("_")[2]
    wanted = [f"multi_{tag}", max(known, key=len, default=""), "multi"]
    return next((x for x in wanted if x in systems and x != name), "")
