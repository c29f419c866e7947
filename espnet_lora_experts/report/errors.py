"""Error rates with bootstrap intervals.

Names of dimensions: U utterances, S bootstrap samples, L languages. Rates are percents.
The resampling is over utterances (Bisani and Ney, "Bootstrap estimates for confidence
intervals in ASR performance evaluation", ICASSP 2004).
"""

from collections.abc import Callable, Mapping, Sequence

import jiwer
import numpy as np

SUB, DEL, INS, REF = range(4)  # columns of counts_U4

_ALIGN: dict[str, Callable] = {
    "word": jiwer.process_words,
    "char": jiwer.process_characters,
}
_COLUMN = {"substitute": SUB, "delete": DEL, "insert": INS}


def count_errors(
    references: Sequence[str], hypotheses: Sequence[str], unit: str
) -> np.ndarray:
    """Align each pair and count its errors.

    Args:
        references: U normalised texts; may be empty.
        hypotheses: U normalised texts; may be empty.
        unit: ``"word"``, or ``"char"`` (a space is a character).

    Returns:
        counts_U4: substitutions, deletions, insertions, reference length.

    Raises:
        ValueError: When the numbers differ, or the unit is unknown.

    Example:
        >>> count_errors(["a b c", ""], ["a x", "y"], "word").tolist()
        [[1, 1, 0, 3], [0, 0, 1, 0]]
    """
    if unit not in _ALIGN:
        raise ValueError(f"unit must be known, but got {unit!r}; known: word char")
    if len(references) != len(hypotheses):
        raise ValueError(
            f"hypotheses must be as many as references ({len(references)}), but got"
            f" {len(hypotheses)}"
        )
    counts_U4 = np.zeros((len(references), 4), dtype=np.int64)
    if len(references) == 0:
        return counts_U4
    aligned = _ALIGN[unit](list(references), list(hypotheses))
    for row, chunks, reference in zip(
        counts_U4, aligned.alignments, aligned.references, strict=True
    ):
        row[REF] = len(reference)
        for chunk in chunks:
            if chunk.type in _COLUMN:
                row[_COLUMN[chunk.type]] += max(
                    chunk.ref_end_idx - chunk.ref_start_idx,
                    chunk.hyp_end_idx - chunk.hyp_start_idx,
                )
    return counts_U4


def rate(counts_U4: np.ndarray) -> float:
    """Errors of a set over its reference length, in percent."""
    return float(_rate(_errors_and_length(counts_U4).sum(axis=0)))


def resample(
    counts: Mapping[str, np.ndarray], samples: int = 1000, seed: int = 0
) -> np.ndarray:
    """Rates of each language over utterances drawn with replacement from it.

    Two systems with the same utterances get the same draws, so that their rates can be
    compared sample by sample.

    Args:
        counts: counts_U4 of each language.
        samples: S.
        seed: Of the draws.

    Returns:
        rates_SL, in the order of ``counts``.
    """
    columns = []
    for number, counts_U4 in enumerate(counts.values()):
        random = np.random.default_rng([seed, number])
        total = len(counts_U4)
        times_SU = random.multinomial(total, np.full(total, 1 / total), size=samples)
        columns.append(_rate(times_SU @ _errors_and_length(counts_U4)))
    return np.stack(columns, axis=1)


def interval(values_S: np.ndarray) -> list[float]:
    """The 95 % percentile interval."""
    low, high = np.percentile(values_S, [2.5, 97.5])
    return [float(low), float(high)]


def paired_p(system_S: np.ndarray, baseline_S: np.ndarray) -> float:
    """Two-sided bootstrap p-value of "system and baseline are equally good".

    p = 2 min(P(d <= 0), P(d >= 0)) with d the paired differences, at most 1; one is
    added to the counts, so that p is never below 2 / (S + 1).
    """
    difference_S = system_S - baseline_S
    tails = [(difference_S <= 0).sum(), (difference_S >= 0).sum()]
    return min(1.0, 2 * (1 + int(min(tails))) / (1 + len(difference_S)))


def _errors_and_length(counts_U4: np.ndarray) -> np.ndarray:
    """(U, 2): errors, reference length."""
    errors_U = counts_U4[:, [SUB, DEL, INS]].sum(axis=1)
    return np.stack([errors_U, counts_U4[:, REF]], axis=1)


def _rate(sums: np.ndarray) -> np.ndarray:
    """Percent from (..., 2); over an empty reference each insertion counts 100."""
    return 100.0 * sums[..., 0] / np.maximum(sums[..., 1], 1)
