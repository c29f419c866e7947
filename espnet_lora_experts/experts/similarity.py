"""How alike experts are: the cosine between the changes of weight that they make."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from espnet_lora_experts.experts.bank import ExpertBank
from espnet_lora_experts.experts.gate import Factors


def inner_product(first: Factors, second: Factors) -> Tensor:
    r"""Sum over the entries of two weight changes' product, without making either.

    .. math:: \langle B_1 A_1, B_2 A_2 \rangle
        = \sum (B_1^\top B_2) \circ (A_1 A_2^\top)

    Args:
        first: ``A_RD, B_OR``.
        second: A pair of the same layer, of any rank.

    Example:
        >>> pair = torch.ones(1, 3), torch.ones(2, 1)
        >>> inner_product(pair, pair)
        tensor(6.)
    """
    (A_RD, B_OR), (A_SD, B_OS) = first, second
    return ((B_OR.T @ B_OS) * (A_RD @ A_SD.T)).sum()


@torch.no_grad()
def similarities(bank: ExpertBank, names: Sequence[str]) -> dict[str, Tensor]:
    """Cosines between N experts' weight changes in every layer.

    Args:
        bank: Where they live.
        names: The N experts.

    Returns:
        By the layer's key: (N, N) in float32, nan where an expert changes nothing.

    Raises:
        ValueError: A name is no expert of the bank.
    """
    bank.require(names)
    return {
        key: _cosines([layer.factors(name) for name in names])
        for key, layer in bank.layers.items()
    }


def _cosines(pairs: Sequence[Factors | None]) -> Tensor:
    product_NN = torch.full((len(pairs), len(pairs)), torch.nan)
    for i, first in enumerate(pairs):
        for j, second in enumerate(pairs):
            if first is not None and second is not None:
                product_NN[i, j] = inner_product(first, second)
    norm_N = product_NN.diagonal().sqrt()
    return product_NN / (norm_N[:, None] * norm_N)
