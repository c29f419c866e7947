"""Before and after: what a system gives once it has learned further languages.

::

    {NAME: {"steps": {"before": n, "after": n},
            MODE: {LANG: {"before": x, "ci95_before": [lo, hi], "lid_before": x,
                          "after": x, "ci95_after": [lo, hi], "lid_after": x,
                          "change": x, "ci95_change": [lo, hi], "p": p}}}}

LANG is each language of the old system, ``avg`` for their average, and each new one,
which has what is of after only. Rates and changes are percentages, p of the paired
bootstrap; LID accuracies are of mode ``agnostic``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from espnet_lora_experts.report import errors
from espnet_lora_experts.report.results import (
    Decoded,
    System,
    by_metric,
    count,
    identification,
    mean,
)

AVERAGE = "avg"


def compare(
    before: Mapping[str, System],
    after: Mapping[str, System],
    samples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Compares systems of the same names, in the modes that both have.

    Args:
        before: The old ones, over the utterances of their languages.
        after: The new ones, over these utterances and those of further languages.
        samples: Bootstrap samples.
        seed: Of the bootstrap; the draws of both are the same.
    """
    return {
        name: {
            "steps": {"before": old.steps, "after": after[name].steps},
            **{
                mode: _languages(old.modes[mode], new, samples, seed)
                for mode, new in after[name].modes.items()
                if mode in old.modes
            },
        }
        for name, old in before.items()
        if name in after
    }


def _languages(old: Decoded, new: Decoded, samples: int, seed: int) -> dict[str, Any]:
    known = sorted(set(old.langs))
    added = sorted(set(new.langs) - set(known))
    was, now = (_scores(x, samples, seed) for x in (old, of_languages(new, known)))
    rows = {lang: _row(was[lang], now[lang]) for lang in was}
    if added:
        fresh = _scores(of_languages(new, added), samples, seed)
        rows |= {lang: _side("after", *fresh[lang]) for lang in added}
    return rows


def of_languages(decoded: Decoded, langs: Sequence[str]) -> Decoded:
    """The output for the utterances of some languages."""
    rows = [i for i, lang in enumerate(decoded.langs) if lang in langs]

    def some(items):
        return None if items is None else [items[i] for i in rows]

    columns = (decoded.langs, decoded.references, decoded.hypotheses, decoded.found)
    return Decoded(*map(some, columns))


def _scores(decoded: Decoded, samples: int, seed: int) -> dict[str, tuple]:
    """Of each language and of their average: rate, its samples (S,), LID or None."""
    counts = by_metric(count(decoded, "word"), count(decoded, "char"))
    rates_SL = errors.resample(counts, samples, seed)
    wer = {lang: errors.rate(counts_U4) for lang, counts_U4 in counts.items()}
    lid = identification(decoded)
    by_language = lid.get("lid_acc_lang", {})
    rows = {
        lang: (wer[lang], rates_S, by_language.get(lang))
        for lang, rates_S in zip(counts, rates_SL.T, strict=True)
    }
    return {**rows, AVERAGE: (mean(wer), rates_SL.mean(axis=1), lid.get("lid_acc"))}


def _row(was: tuple, now: tuple) -> dict[str, Any]:
    difference_S = now[1] - was[1]
    return {
        **_side("before", *was),
        **_side("after", *now),
        "change": now[0] - was[0],
        "ci95_change": errors.interval(difference_S),
        "p": errors.paired_p(now[1], was[1]) if difference_S.any() else 1.0,
    }


def _side(
    name: str, rate: float, rates_S: np.ndarray, lid: float | None
) -> dict[str, Any]:
    interval = errors.interval(rates_S)
    return {name: rate, f"ci95_{name}": interval, f"lid_{name}": lid}
