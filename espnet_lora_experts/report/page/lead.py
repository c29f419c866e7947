"""Who won, and by how much."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from espnet_lora_experts.report import errors, results
from espnet_lora_experts.whisper.languages import MODES

CHANCE = 0.05
"""p from which on a difference may be chance."""


@dataclass(frozen=True)
class Win:
    """The system with the lowest average rate of a mode.

    Attributes:
        mode: ``aware`` or ``agnostic``.
        system: Its name.
        wer: Its average rate in percent.
        interval: 95 % interval of the rate.
        rival: The next system; "" if there is none.
        ahead: How many points it is ahead.
        ahead_interval: 95 % interval of that; None without the decoded texts.
        p: Paired bootstrap p-value of it; None without the decoded texts.
    """

    mode: str
    system: str
    wer: float
    interval: list[float]
    rival: str = ""
    ahead: float = 0.0
    ahead_interval: list[float] | None = None
    p: float | None = None

    @property
    def title(self) -> str:
        """What the mode means."""
        return MODES[self.mode].capitalize()

    @property
    def verdict(self) -> str:
        """Whether the difference is more than chance."""
        if self.p is None:
            return ""
        return "more than chance" if self.p < CHANCE else "may be chance"


def wins(
    scored: Mapping[str, Any],
    decoded: Mapping[tuple[str, str], results.Decoded],
) -> list[Win]:
    """The winner of each mode that some system has.

    Args:
        scored: The results dict.
        decoded: Texts by system and mode, as far as they are there.
    """
    systems = scored["systems"]
    found = []
    for mode in MODES:
        rows = {name: row[mode] for name, row in systems.items() if mode in row}
        first, second, *_ = [*sorted(rows, key=lambda n: rows[n]["avg_wer"]), "", ""]
        if not first:
            continue
        win = {"mode": mode, "system": first, "rival": second}
        win |= {"wer": rows[first]["avg_wer"], "interval": rows[first]["ci95"]}
        if second:
            win["ahead"] = rows[second]["avg_wer"] - rows[first]["avg_wer"]
            texts = decoded.get((first, mode)), decoded.get((second, mode))
            if texts[0] and texts[1]:
                samples = scored["meta"].get("samples", 1000)
                win |= compare(texts[0], texts[1], samples)
        found.append(Win(**win))
    return found


def compare(
    winner: results.Decoded, rival: results.Decoded, samples: int
) -> dict[str, Any]:
    """Interval and p-value of a difference, by the bootstrap of the results."""
    winner_S, rival_S = (results.score(x, samples, 0)[1] for x in (winner, rival))
    return {
        "ahead_interval": errors.interval(rival_S - winner_S),
        "p": errors.paired_p(winner_S, rival_S),
    }
