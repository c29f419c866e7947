"""What the page is made of, and the names and colours that all parts share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

TITLES = {
    "vanilla": "Whisper as it came",
    "mono": "one LoRA expert per language",
    "two_pass": "Whisper's LID, then the expert",
    "multi": "pooled LoRA",
    "mole": "LoRA MoLE, experts fused",
    "kd": "distilled student",
    "kd_logits_only": "student distilled from logits only",
    "full": "full fine-tuning",
}
COLOURS = 8
"""Number of the page's colours ``--c0`` to ``--c7``, told apart by the colour-blind."""
SYMBOLS = {
    "circle": "●",
    "square": "■",
    "diamond": "◆",
    "triangle-up": "▲",
    "triangle-down": "▼",
    "cross": "✚",
    "x": "✖",
    "star": "★",
}
"""Plotly's symbols and the characters that stand for them in a legend."""


@dataclass(frozen=True)
class Chart:
    """A figure of Plotly under a title of its own, and what its numbers amount to."""

    title: str
    figure: dict[str, Any]
    aside: str = ""


@dataclass(frozen=True)
class Cell:
    """A number of a table and its interval, "" for none."""

    text: str
    aside: str = ""
    best: bool = False


@dataclass(frozen=True)
class Table:
    """A table whose rows open with a system's name and what it is."""

    title: str
    head: Sequence[str]
    rows: Sequence[tuple[str, str, Sequence[Cell]]]


@dataclass(frozen=True)
class Key:
    """An entry of a legend: a coloured character and what it stands for."""

    mark: str
    colour: str
    text: str


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        id: Of the HTML element, for links.
        title: What the section shows.
        note: How to read it, in a sentence.
        charts: Its figures.
        keys: Legend of all its figures.
        tables: The first is open, the others open at a click.
        utterances: Worst utterances by system; see :mod:`.worst`.
        missing: Why there is nothing to show; "" if there is.
    """

    id: str
    title: str
    note: str = ""
    charts: Sequence[Chart] = ()
    keys: Sequence[Key] = ()
    tables: Sequence[Table] = ()
    utterances: Mapping[str, Sequence[Any]] | None = None
    missing: str = ""


def system_title(name: str) -> str:
    """What a system is, from the name of its folder.

    Example:
        >>> system_title("mole_L1_50"), system_title("kd@30s")
        ('LoRA MoLE, experts fused: L1_50', 'distilled student, padded to 30 s')
        >>> system_title("mole@top2"), system_title("two_pass@kd")
        ('LoRA MoLE, experts fused, top2', 'LID by kd, then the expert')
    """
    base, _, way = name.partition("@")
    if base == "two_pass" and way not in ("", "30s"):
        return f"LID by {way}, then the expert"
    known = [key for key in TITLES if f"{base}_".startswith(f"{key}_")]
    longest = max(known, key=len, default="")
    tag = base.removeprefix(longest).removeprefix("_")
    other = f", {way}" if way else ""
    if way == "30s":
        other = ", padded to 30 s"
    return ": ".join(x for x in (TITLES.get(longest, ""), tag) if x) + other


def colour(number: int) -> str:
    """A colour of the page; the page's script puts the theme's value in its place."""
    return f"var(--c{number % COLOURS})"


def symbol(number: int) -> str:
    """The symbol of Plotly that goes with a colour, so that both tell."""
    return [*SYMBOLS][number % len(SYMBOLS)]
