"""Gates: how much of each expert every row of a batch gets. The project's one idea.

    y = x W^T + sum over the terms of a gate:  x A^T B^T

A *term* gives every row of the batch a pair (A, B): the same for all, or each row its
own; a *gate* is a tuple of terms. Everything the project does is a choice of gates:

    vanilla Whisper          ()
    a language expert        one_hot(["es"] * batch)       or languages mixed in a batch
    pooled LoRA, KD student  everywhere("multi")
    MoLE, merged layers      fused(fusion)                 the same for every utterance
    MoLE, upper layers       one_hot(routed languages)
    MoLE, top_k above 1      soft(["es", "ro"], weight_BE)

Names of dimensions: B batch, E experts, D input width, O output width, R rank.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from espnet_lora_experts.experts.product import product_type

if TYPE_CHECKING:
    from espnet_lora_experts.experts.fusion import Fusion
    from espnet_lora_experts.experts.layer import ExpertLinear

Factors = tuple[Tensor, Tensor]
"""``A_RD, B_OR`` with LoRA's scale folded into B."""


@dataclass(frozen=True)
class Term:
    """A pair for every row of the batch: rows receive ``weight * x A^T B^T``.

    Attributes:
        factors: Takes a layer to its ``A_RD, B_OR``, the pair of all rows, or to the
            pairs ``A_ERD, B_EOR`` of E experts; to None where it has none.
        which: Which of the E each row receives, length B; None: one pair is for all.
        weight: Takes a layer to the weight of each row at each rank, (B, R) or (B, 1);
            None is 1.
    """

    factors: Callable[[ExpertLinear], Factors | None]
    which: tuple[int, ...] | None = None
    weight: Callable[[ExpertLinear], Tensor] | None = None


Gate = tuple[Term, ...]
VANILLA: Gate = ()


def everywhere(name: str) -> Gate:
    """Gives every row the same expert, whatever the batch."""
    return (Term(partial(_factors_of, name)),)


def _factors_of(name: str, layer: ExpertLinear) -> Factors | None:
    return layer.factors(name)


def one_hot(names: Sequence[str]) -> Gate:
    """Gives every row its own expert.

    Args:
        names: Expert of each row, length B, in any order.

    Example:
        >>> [term.which for term in one_hot(["es", "ru", "es"])]
        [(0, 1, 0)]
    """
    distinct = list(dict.fromkeys(names))
    if len(distinct) < 2:
        return everywhere(distinct[0]) if distinct else VANILLA
    which = tuple(distinct.index(name) for name in names)
    return (Term(partial(_stacked, distinct), which),)


def _stacked(names: Sequence[str], layer: ExpertLinear) -> Factors | None:
    """Pairs of several experts, ``A_ERD, B_EOR``: R is the largest rank, or 0."""
    pairs = [layer.factors(name) for name in names]
    if not any(pairs):
        return None
    A_ERD, B_EOR = (torch.stack(side) for side in zip(*_padded(pairs), strict=True))
    return A_ERD, B_EOR


def _padded(pairs: Sequence[Factors | None]) -> list[Factors]:
    """Pairs of one rank: zeros fill up, and stand for an expert that is not there."""
    held = [pair for pair in pairs if pair is not None]
    if len(held) == len(pairs) and len({len(A_RD) for A_RD, _ in held}) == 1:
        return held
    rank = max(len(A_RD) for A_RD, _ in held)
    none = held[0][0][:0], held[0][1][:, :0]
    return [
        (F.pad(A, (0, 0, 0, rank - len(A))), F.pad(B, (0, rank - len(A))))
        for A, B in (none if pair is None else pair for pair in pairs)
    ]


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
        Term(partial(_factors_of, name), weight=partial(_column, weight_BE, e))
        for e, name in enumerate(names)
    )


def _column(weight_BE: Tensor, e: int, layer: ExpertLinear) -> Tensor:
    return weight_BE[:, e : e + 1]


def fused(fusion: Fusion) -> Gate:
    """Gives every row the learned mixture of :class:`~.fusion.Fusion`."""
    return (Term(fusion.factors),)


class Packed:
    """Experts side by side as one pair (A, B) in every layer, put together once.

    Its gate gives what :func:`one_hot` gives, by one product for all experts in which
    each row keeps its own ranks. That is more arithmetic in fewer calls: right for a
    step of decoding, where a row is one position. No gradient passes.

    Args:
        names: The experts.
    """

    def __init__(self, names: Sequence[str]):
        self.names = list(names)
        self._layers: dict[str, tuple[Factors | None, tuple[int, ...]]] = {}

    def gate(self, names: Sequence[str]) -> Gate:
        """Gives every row its own of the packed experts.

        Args:
            names: Expert of each row, length B.
        """
        if len(self.names) == 1:
            return everywhere(self.names[0])
        which = tuple(self.names.index(name) for name in names)
        return (Term(self._factors, weight=partial(self._mask, which)),)

    def soft(self, weight_BE: Tensor) -> Gate:
        """Gives every row a weighted sum of the packed experts' outputs.

        Args:
            weight_BE: Weights, (B, E).
        """
        return (Term(self._factors, weight=partial(self._spread, weight_BE)),)

    def _spread(self, weight_BE: Tensor, layer: ExpertLinear) -> Tensor:
        ranks = torch.tensor(self._pack(layer)[1], device=weight_BE.device)
        return weight_BE.repeat_interleave(ranks, dim=1)

    def _mask(self, which: tuple[int, ...], layer: ExpertLinear) -> Tensor:
        pair, ranks = self._pack(layer)
        assert pair is not None  # else the term gives this layer nothing
        return _own_ranks(which, ranks, pair[0].device)

    def _factors(self, layer: ExpertLinear) -> Factors | None:
        return self._pack(layer)[0]

    @torch.no_grad()
    def _pack(self, layer: ExpertLinear) -> tuple[Factors | None, tuple[int, ...]]:
        if layer.key not in self._layers:
            pairs = [layer.factors(name) for name in self.names]
            ranks = tuple(0 if pair is None else len(pair[0]) for pair in pairs)
            held = [pair for pair in pairs if pair is not None]
            packed = None
            if held:
                A_RD, B_OR = zip(*held, strict=True)
                dtype = product_type(A_RD[0])
                packed = torch.cat(A_RD).to(dtype), torch.cat(B_OR, dim=1).to(dtype)
            self._layers[layer.key] = packed, ranks
        return self._layers[layer.key]


@lru_cache(maxsize=16)  # the same in all layers of a model, for many steps
def _own_ranks(
    which: tuple[int, ...], ranks: tuple[int, ...], device: torch.device
) -> Tensor:
    """1 at each row's own ranks, (B, sum of ranks), else 0."""
    with torch.inference_mode(False):
        owner_R = torch.arange(len(ranks)).repeat_interleave(torch.tensor(ranks))
        return (owner_R == torch.tensor(which)[:, None]).float().to(device)
