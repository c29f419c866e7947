"""The results of a project: one dict, from which every table and page is made.

::

    {"meta": {...},
     "systems": {NAME: {
         "steps": n, "trained_params": n, "deployed_params": n,
         MODE: {"wer": {LANG: x}, "cer": {LANG: x}, "avg_wer": x, "avg_cer": x,
                "ci95": [lo, hi], "ci95_lang": {LANG: [lo, hi]}, "ci95_cer": [lo, hi],
                "p_vs_<baseline>": p or None, "rtf": x or None,
                "lid_acc": x, "lid_acc_lang": {LANG: x},
                "counts": {"word" or "char": {LANG: {...}}},
                "other_texts": {NORMALISER: {"wer": {LANG: x}, "avg_wer": x,
                                             "ci95": [lo, hi]}}}}}}

Beside "systems", "cross" is {EXPERT: {LANG: x}}: the error rate of each language's
expert on every language.

MODE is ``aware`` or ``agnostic``; the LID accuracies are agnostic only. ``wer`` is the
character error rate for languages without spaces, as in the paper (arXiv 2506.21555).
``other_texts`` are the same transcripts, normalised in other ways: ``raw``, not at all;
``whisper``, as Whisper's authors do. Averages are over languages, intervals 95 %
bootstrap intervals. All are percentages. For the LID accuracies see
:func:`identification`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from espnet_lora_experts.report import errors
from espnet_lora_experts.whisper import languages


@dataclass(frozen=True)
class Decoded:
    """A system's output over all test sets in one mode; texts are normalised."""

    langs: list[str]  # the true languages
    references: list[str]
    hypotheses: list[str]
    found: list[str] | None = None  # languages that the system found
    rtf: float | None = None


@dataclass(frozen=True)
class System:
    """A system's size and output."""

    steps: int
    trained_params: int
    deployed_params: int
    modes: Mapping[str, Decoded]


def build(
    systems: Mapping[str, System],
    meta: Mapping[str, Any],
    baseline: str = "multi",
    samples: int = 1000,
    seed: int = 0,
    cross: Mapping[str, Decoded] | None = None,
    others: Sequence[str] = (),
    other_texts: Mapping[str, Mapping[str, System]] | None = None,
) -> dict[str, Any]:
    """Score every system in every mode it has.

    Args:
        systems: By name, in the order of the tables.
        meta: Where and how the results were made.
        baseline: The system that the others are compared with; if it is absent, or has
            no such mode, there is no p-value.
        samples: Bootstrap samples.
        seed: Of the bootstrap.
        cross: Each expert's output for every language.
        others: Further systems to compare with, as with the baseline.
        other_texts: The same systems, by the name of another normaliser.
    """
    scored = {
        (name, mode): score(decoded, samples, seed)
        for name, system in systems.items()
        for mode, decoded in system.modes.items()
    }
    rows: dict[str, Any] = {}
    for name, system in systems.items():
        rows[name] = {
            "steps": system.steps,
            "trained_params": system.trained_params,
            "deployed_params": system.deployed_params,
        }
        for mode in system.modes:
            row, averages_S = scored[name, mode]
            also = {
                how: brief(found[name].modes[mode], samples, seed)
                for how, found in (other_texts or {}).items()
            }
            rows[name][mode] = {**row, "other_texts": also}
            for other in (baseline, *others):
                against = scored.get((other, mode)) if name != other else None
                p = errors.paired_p(averages_S, against[1]) if against else None
                rows[name][mode][f"p_vs_{other}"] = p
    crossed = {name: score(x, 1, seed)[0]["wer"] for name, x in (cross or {}).items()}
    about = {**meta, "baseline": baseline, "samples": samples, "seed": seed}
    return {"meta": about, "systems": rows, "cross": crossed}


def differences(one: Any, other: Any, name: str = "") -> list[str]:
    """Where two results differ, but for what they say about their making.

    Example:
        >>> one = {"meta": {"date": 1}, "systems": {"kd": {"aware": [1.0, 2]}}}
        >>> other = {"meta": {}, "systems": {"kd": {"aware": [1.0, 3]}}}
        >>> differences(one, other), differences(one, one)
        (['systems.kd.aware.1: 2, now 3'], [])
    """
    if isinstance(one, list) and isinstance(other, list):
        one, other = dict(enumerate(one)), dict(enumerate(other))
    if not (isinstance(one, dict) and isinstance(other, dict)):
        return [] if one == other else [f"{name}: {one}, now {other}"]
    return [
        found
        for key in [*one, *(key for key in other if key not in one)]
        if (name, key) != ("", "meta")
        for found in differences(
            one.get(key), other.get(key), f"{name}.{key}" if name else key
        )
    ]


def score(decoded: Decoded, samples: int, seed: int) -> tuple[dict, np.ndarray]:
    """One system in one mode: its row, and its average rate in each sample (S,)."""
    words, chars = count(decoded, "word"), count(decoded, "char")
    main = by_metric(words, chars)
    rates_SL = errors.resample(main, samples, seed)
    cer_SL = errors.resample(chars, samples, seed)
    wer = {lang: errors.rate(counts) for lang, counts in main.items()}
    cer = {lang: errors.rate(counts) for lang, counts in chars.items()}
    row = {
        "wer": wer,
        "cer": cer,
        "avg_wer": mean(wer),
        "avg_cer": mean(cer),
        "ci95": errors.interval(rates_SL.mean(axis=1)),
        "ci95_lang": dict(zip(main, map(errors.interval, rates_SL.T), strict=True)),
        "ci95_cer": errors.interval(cer_SL.mean(axis=1)),
        "rtf": decoded.rtf,
        **identification(decoded),
        "counts": {"word": totals(words), "char": totals(chars)},
    }
    return row, rates_SL.mean(axis=1)


def brief(decoded: Decoded, samples: int, seed: int) -> dict[str, Any]:
    """The rates alone of one system in one mode."""
    main = by_metric(count(decoded, "word"), count(decoded, "char"))
    wer = {lang: errors.rate(counts) for lang, counts in main.items()}
    rates_SL = errors.resample(main, samples, seed)
    interval = errors.interval(rates_SL.mean(axis=1))
    return {"wer": wer, "avg_wer": mean(wer), "ci95": interval}


def by_metric(
    words: Mapping[str, np.ndarray], chars: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Of each language the counts of its metric."""
    counts = {"wer": words, "cer": chars}
    return {lang: counts[languages.get(lang).metric][lang] for lang in words}


def count(decoded: Decoded, unit: str) -> dict[str, np.ndarray]:
    """counts_U4 of each language, languages sorted."""
    counts_U4 = errors.count_errors(decoded.references, decoded.hypotheses, unit)
    langs = np.array(decoded.langs)
    return {str(lang): counts_U4[langs == lang] for lang in np.unique(langs)}


def identification(decoded: Decoded) -> dict[str, Any]:
    """Accuracy of the found languages, averaged over languages; {} if none were.

    Languages that may share a Whisper token are one class (:func:`lid_class`): whoever
    finds the language by its token cannot tell them apart. The classes are the same for
    all systems, so that these compare, and whatever the vocabulary; where a router, or
    a Whisper with a token for ``yue``, does tell them apart, this does not show it.
    """
    if decoded.found is None:
        return {}
    hits: dict[str, list[bool]] = {lang: [] for lang in sorted(set(decoded.langs))}
    for true, found in zip(decoded.langs, decoded.found, strict=True):
        hits[true].append(lid_class(true) == lid_class(found))
    accuracy = {lang: 100 * sum(hit) / len(hit) for lang, hit in hits.items()}
    return {"lid_acc": mean(accuracy), "lid_acc_lang": accuracy}


def lid_class(code: str) -> str:
    """The language whose token a language has where its own is not in the vocabulary.

    Example:
        >>> lid_class("yue"), lid_class("zh"), lid_class("es")
        ('zh', 'zh', 'es')
    """
    parent = languages.get(code).parent
    return lid_class(parent) if parent else code


def totals(counts: Mapping[str, np.ndarray]) -> dict[str, dict[str, int]]:
    """Counts that sclite reports: sentences, length, errors, sentences with errors."""
    names = ("sub", "del", "ins", "ref")
    return {
        lang: {
            "snt": len(counts_U4),
            **dict(zip(names, map(int, counts_U4.sum(axis=0)), strict=True)),
            "wrong": int(counts_U4[:, : errors.REF].any(axis=1).sum()),
        }
        for lang, counts_U4 in counts.items()
    }


def mean(values: Mapping[str, float]) -> float:
    """Average over languages."""
    return sum(values.values()) / len(values)
