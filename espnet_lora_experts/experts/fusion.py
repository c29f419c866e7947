"""Fusion: experts merged into one, with learned weights or by a fixed rule.

The learned fusion is the paper's (https://arxiv.org/abs/2506.21555, Section 2.2): one
vector V_i of N weights for each matrix i. The fixed rules carry PEFT's names
(``combination_type`` of ``add_weighted_adapter``) and are pure functions on factors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from peft.utils.merge_utils import dare_linear, task_arithmetic, ties
from torch import Tensor, nn

from espnet_lora_experts.experts.gate import Factors
from espnet_lora_experts.experts.layer import ExpertLinear

COMBINATIONS = ("factor", "delta")
COMBINATION_TYPES = (
    *("linear", "ties", "dare_linear"),
    *("cat", "svd", "ties_svd", "dare_linear_svd"),
)
"""PEFT's names of the fixed rules: those on factors, then those on products."""


class Fusion(nn.Module):
    r"""Learned weights over experts, one vector for each weight matrix.

    .. math::
        \alpha_i = \mathrm{softmax}(V_i), \quad
        \text{factor: } \hat A_i = \sum_j \alpha_{ij} A_{ij},\;
        \hat B_i = \sum_j \alpha_{ij} B_{ij}, \quad
        \text{delta: } \hat B_i \hat A_i = \sum_j \alpha_{ij} B_{ij} A_{ij}

    ``factor`` is the paper's and holds cross terms B_j A_k; ``delta`` is exact.

    Args:
        experts: Names of the N experts.
        keys: Names of the I weight matrices.
        combination: ``factor`` or ``delta``.

    Raises:
        ValueError: Unknown combination.

    Example:
        >>> fusion = Fusion(["es", "ru"], ["encoder.layers.0.fc1"])
        >>> fusion.alpha_IN
        tensor([[0.5000, 0.5000]], grad_fn=<SoftmaxBackward0>)
    """

    def __init__(
        self, experts: Sequence[str], keys: Sequence[str], combination: str = "factor"
    ):
        super().__init__()
        if combination not in COMBINATIONS:
            raise ValueError(
                f"combination must be one of {COMBINATIONS}, but got {combination!r}"
            )
        self.experts = list(experts)
        self.index = {key: i for i, key in enumerate(keys)}
        self.combination = combination
        self.V_IN = nn.Parameter(torch.zeros(len(keys), len(experts)))

    @torch.no_grad()
    def start_from(
        self, V_IM: Tensor, places: Sequence[int], new_share: float | None = None
    ) -> None:
        r"""Takes over weights learned for M of the experts; their ratios stay.

        .. math:: v_\mathrm{new} = \log \sum_j e^{V_{ij}}
            + \log \frac{s}{1 - s} - \log (N - M)

        gives the N - M new experts the share s of each mixture.

        Args:
            V_IM: The learned weights.
            places: Where each of the M is among the N, length M.
            new_share: s, below 1; None gives each of them 1 / N, an equal share. With
                0 all mixtures stay as they were, for good: no gradient moves it.

        Raises:
            ValueError: A share that is none.

        Example:
            >>> fusion = Fusion(["be", "es", "ru"], ["encoder.layers.0.fc1"])
            >>> fusion.start_from(torch.tensor([[3.0, 3.0]]), [1, 2], new_share=0.5)
            >>> fusion.alpha_IN.tolist()
            [[0.5, 0.25, 0.25]]
        """
        fresh = len(self.experts) - len(places)
        share = fresh / len(self.experts) if new_share is None else new_share
        if not 0 <= share < 1:
            raise ValueError(
                f"new_share must be at least 0 and below 1, but got {share}"
            )
        odds = torch.tensor(share / (1 - share) / fresh)
        self.V_IN[:] = V_IM.logsumexp(dim=1, keepdim=True) + odds.log()
        self.V_IN[:, list(places)] = V_IM

    @property
    def alpha_IN(self) -> Tensor:
        """Weights of the experts, (I, N), rows sum to 1."""
        return self.V_IN.softmax(dim=-1)

    def factors(self, layer: ExpertLinear) -> Factors | None:
        """The merged pair of one layer, or None when no expert touches it.

        Raises:
            ValueError: ``factor`` asked of experts whose ranks or targets differ.
        """
        found = {name: layer.factors(name) for name in self.experts}
        pairs = [pair for pair in found.values() if pair is not None]
        if not pairs:
            return None
        alpha_N = self.alpha_IN[self.index[layer.key]]
        if self.combination == "delta":
            held = [pair is not None for pair in found.values()]
            return concatenate(pairs, alpha_N[held])
        ranks = {name: pair[0].shape[0] if pair else 0 for name, pair in found.items()}
        if len(set(ranks.values())) != 1:
            raise ValueError(
                f"factor fusion must have experts of one rank at {layer.key}, but got "
                f"{ranks}; use combination: delta"
            )
        return mean_factors(pairs, alpha_N)


def mean_factors(pairs: Sequence[Factors], weight_N: Tensor) -> Factors:
    """Weighted sum of the A and of the B: ``(sum w A, sum w B)``, with cross terms."""
    A_NRD = torch.stack([A for A, _ in pairs])
    B_NOR = torch.stack([B for _, B in pairs])
    return (
        torch.einsum("n,nrd->rd", weight_N, A_NRD),
        torch.einsum("n,nor->or", weight_N, B_NOR),
    )


def concatenate(pairs: Sequence[Factors], weight_N: Tensor) -> Factors:
    """The exact weighted sum of products, as one pair of rank ``sum R``."""
    A_RD = torch.cat([A for A, _ in pairs], dim=0)
    B_OR = torch.cat([B * w for (_, B), w in zip(pairs, weight_N, strict=True)], dim=1)
    return A_RD, B_OR


def truncated_svd(delta_OD: Tensor, r: int) -> Factors:
    r"""Best pair of rank r of a weight change, :math:`\sqrt S` on both factors.

    Exact when ``r`` is at least the rank of ``delta_OD``; missing rows are zero.

    Args:
        delta_OD: Weight change, (O, D).
        r: Rank of the pair.

    Returns:
        ``A_RD, B_OR``.

    Example:
        >>> A, B = truncated_svd(torch.diag(torch.tensor([3.0, 0.0])), r=1)
        >>> (B @ A).allclose(torch.diag(torch.tensor([3.0, 0.0])), atol=1e-6)
        True
    """
    U_OS, S_S, Vh_SD = torch.linalg.svd(delta_OD.float(), full_matrices=False)
    kept = min(r, len(S_S))
    root_S = S_S[:kept].sqrt()
    A_RD = delta_OD.new_zeros(r, delta_OD.shape[1])
    B_OR = delta_OD.new_zeros(delta_OD.shape[0], r)
    A_RD[:kept] = root_S[:, None] * Vh_SD[:kept]
    B_OR[:, :kept] = U_OS[:, :kept] * root_S
    return A_RD, B_OR


def merge(
    pairs: Sequence[Factors],
    weight_N: Tensor,
    combination_type: str,
    r: int,
    density: float = 0.5,
) -> Factors:
    """Merges experts' pairs at one matrix without training, as PEFT does.

    Rules on factors put the root of a weight on A and on B, its sign on A.

    Args:
        pairs: The N pairs ``A_RD, B_OR``.
        weight_N: Weight of each expert, (N,).
        combination_type: One of :data:`COMBINATION_TYPES`; ``cat`` is exact.
        r: Rank of the result where the rule truncates (``*svd``).
        density: Share of entries that TIES and DARE keep.

    Raises:
        ValueError: Unknown ``combination_type``.
    """
    if combination_type not in COMBINATION_TYPES:
        raise ValueError(
            f"combination_type must be one of {COMBINATION_TYPES}, "
            f"but got {combination_type!r}"
        )
    if combination_type == "cat":
        return concatenate(pairs, weight_N)
    rule = _RULES[combination_type.removesuffix("svd").removesuffix("_") or "linear"]
    if combination_type.endswith("svd"):
        deltas = [B_OR @ A_RD for A_RD, B_OR in pairs]
        return truncated_svd(rule(deltas, weight_N, density), r)
    root_N = weight_N.abs().sqrt()
    A_RD = rule([A for A, _ in pairs], root_N * weight_N.sign(), density)
    return A_RD, rule([B for _, B in pairs], root_N, density)


def _linear(tensors: list[Tensor], weight_N: Tensor, density: float) -> Tensor:
    return task_arithmetic(tensors, weight_N)


_RULES: dict[str, Callable[[list[Tensor], Tensor, float], Tensor]] = {
    "linear": _linear,
    "ties": ties,
    "dare_linear": dare_linear,
}
