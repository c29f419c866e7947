"""The scores of a model card: the table that people read, and the hub's model index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from huggingface_hub import EvalResult

from espnet_lora_experts.whisper import languages

TASK = "automatic-speech-recognition"
HUB_CODES = {"jw": "jv"}
"""Languages that the hub's cards call by another code than Whisper."""
METRICS = ("wer", "cer")
Rows = Sequence[Sequence[str]]
"""Rows of cells, the first row the header."""
Scores = Mapping[str, Any]
"""A system's part of ``results.json``, or what that file says of itself."""


def page(scores: Scores, meta: Scores, codes: Sequence[str]) -> list[str]:
    """A table of error rates by language, as lines of Markdown; [] if not scored.

    Args:
        scores: Of the system.
        meta: Of the whole file.
        codes: The languages of the card. The average is that of all languages scored,
            so it is left out where the card is of some of them.
    """
    modes = _modes(scores, codes)
    header, rows, average = (
        ["language"],
        [[languages.title(code)] for code in codes],
        ["average"],
    )
    for mode, of in modes.items():
        header += [f"{metric.upper()}, {languages.MODES[mode]}" for metric in METRICS]
        low, high = of["ci95"]
        average.append(f"{of['avg_wer']:.1f} [{low:.1f}, {high:.1f}]")
        average.append(f"{of['avg_cer']:.1f}")
        columns = [of[metric] for metric in METRICS]
        if "lid_acc" in of:
            header.append("language right")
            average.append(f"{of['lid_acc']:.1f}")
            columns.append(of["lid_acc_lang"])
        for row, code in zip(rows, codes, strict=True):
            row += [f"{column[code]:.1f}" for column in columns]
    if not modes:
        return []
    whole = len(codes) > 1 and all(
        set(of["wer"]) == set(codes) for of in modes.values()
    )
    about = "In %, the average with a 95 % bootstrap interval" if whole else "In %"
    sets = [f"{name} ({n:,} utterances)" for name, n in _sets(meta).items()]
    about += f"; test sets: {', '.join(sets)}." if sets else "."
    return [about, "", *table([header, *rows, *([average] if whole else [])])]


def eval_results(
    scores: Scores, meta: Scores, codes: Sequence[str]
) -> list[EvalResult]:
    """The same error rates as the hub indexes them."""
    name = "+".join(_sets(meta)) or "test"
    return [
        EvalResult(
            task_type=TASK,
            dataset_type=name,
            dataset_name=name,
            dataset_config=hub_code(code),
            metric_type=metric,
            metric_name=f"{metric.upper()}, {languages.MODES[mode]}",
            metric_value=round(of[metric][code], 2),
        )
        for mode, of in _modes(scores, codes).items()
        for code in codes
        for metric in METRICS
    ]


def _modes(scores: Scores, codes: Sequence[str]) -> dict[str, Scores]:
    """Of each mode that was scored on all of these languages, its scores."""
    modes = {mode: scores.get(mode) or {} for mode in languages.MODES}
    return {m: of for m, of in modes.items() if set(codes) <= set(of.get("wer", ()))}


def _sets(meta: Scores) -> Mapping[str, int]:
    return meta.get("utterances", {})


def table(rows: Rows) -> list[str]:
    """Lines of a Markdown table.

    Example:
        >>> table([["a", "b"], ["1", "2"]])
        ['| a | b |', '|---|---|', '| 1 | 2 |']
    """
    header, *body = [f"| {' | '.join(row)} |" for row in rows]
    return [header, "|" + "---|" * len(rows[0]), *body]


def hub_code(code: str) -> str:
    """The code by which the hub calls one of Whisper's languages."""
    return HUB_CODES.get(code, code)
