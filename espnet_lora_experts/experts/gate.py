"""Gates: how much of each expert every row of a batch gets. The project's one idea.

    y = x W^T + sum over the terms of a gate: rows of x get  x A^T B^T

A *term* names some rows of the batch and the pair (A, B) that they receive; a *gate* is
a tuple of terms. Everything the project does is a choice of gates:

    vanilla Whisper          ()
    a language expert        one_hot(["es"] * batch)       or languages mixed in a batch
    pooled LoRA, KD student  one_hot(["multi"] * batch)
    MoLE, merged layers      fused(fusion)                 the same for every utterance
    MoLE, upper layers       one_hot(routed languages)
    mixtures                 soft(["es", "ro"], weight_BE)

Names of dimensions: B batch, E experts, D input width, O output width, R rank.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from espnet_lora_experts.experts.fusion import Fusion
    from espnet_lora_experts.experts.layer import ExpertLinear

Factors = tuple[Tensor, Tensor]
"""``A_RD, B_OR`` with LoRA's scale folded into B."""

EVERY_ROW = slice(None)


@dataclass(frozen=True)
class Term:
    """Rows of the batch that receive ``x A^T B^T``.

    Attributes:
        rows: Slice of the batch.
        factors: Takes a layer to its ``(A_RD, B_OR)``, or to None where it has none.
        weight_B: Weight per row of ``rows``, (B,); None is 1.
    """

    rows: slice
    factors: Callable[[ExpertLinear], Factors | None]
    weight_B: Tensor | None = None


Gate = tuple[Term, ...]
VANILLA: Gate = ()


def _factors_of(name: str, layer: ExpertLinear) -> Factors | None:
    return layer.factors(name)


def one_hot(names: Sequence[str]) -> Gate:
    """Gives every row its own expert: one term for each run of equal names.

    Any order is right; a batch sorted by name needs the fewest products.

    Args:
        names: Expert of each row, length B.

    Example:
        >>> [term.rows for term in one_hot(["es", "es", "ru"])]
        [slice(0, 2, None), slice(2, 3, None)]
    """
    terms: list[Term] = []
    start = 0
    for name, run in groupby(names):
        stop = start + len(list(run))
        terms.append(Term(slice(start, stop), partial(_factors_of, name)))
        start = stop
    return tuple(terms)


def everywhere(name: str) -> Gate:
    """Gives every row the same expert, whatever the batch."""
    return (Term(EVERY_ROW, partial(_factors_of, name)),)


def soft(names: Sequence[str], weight_BE: Tensor) -> Gate:
    """Gives every row a weighted sum of experts' outputs.

    Args:
        names: The E experts.
        weight_BE: Weights, (B, E).

    Raises:
        ValueError: The weights do not have one column for each name.
    """
    if weight_BE.shape[-1] != len(names):
        raise ValueError(
            f"weight_BE must have {len(names)} columns, one for each of {list(names)}, "
            f"but got shape {tuple(weight_BE.shape)}"
        )
    return tuple(
        Term(EVERY_ROW, partial(_factors_of, name), weight_BE[:, e])
        for e, name in enumerate(names)
    )


def fused(fusion: Fusion) -> Gate:
    """Gives every row the learned mixture of :class:`~.fusion.Fusion`."""
    return (Term(EVERY_ROW, fusion.factors),)
