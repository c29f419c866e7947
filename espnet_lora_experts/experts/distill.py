"""Losses of layer-wise distillation, and how a student starts. Pure functions.

Source: https://arxiv.org/abs/2506.21555, Section 2.3. Every loss is computed in
float32, per position, then averaged over an utterance's valid positions and then over
the batch, so that a mixed batch equals its utterances one by one. Names of dimensions:
B batch, T positions, D width, K classes, R rank.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from espnet_lora_experts.experts.fusion import concatenate, mean_factors, truncated_svd
from espnet_lora_experts.experts.gate import Factors

STUDENT_INITS = ("delta_svd", "factor_mean", "zero")


def sequence_mean(value_BT: Tensor, valid_BT: Tensor) -> Tensor:
    """Mean over each row's valid positions; 0 for a row that has none.

    Args:
        value_BT: Values, (B, T); invalid ones may be anything, NaN included.
        valid_BT: True where a position counts, (B, T).

    Returns:
        Means, (B,).

    Example:
        >>> import torch
        >>> valid_BT = torch.tensor([[True, True, False]])
        >>> sequence_mean(torch.tensor([[1.0, 3.0, 9.0]]), valid_BT)
        tensor([2.])
    """
    total_B = value_BT.masked_fill(~valid_BT, 0.0).sum(dim=1)
    return total_B / valid_BT.sum(dim=1).clamp(min=1)


def cosine_loss_B(teacher_BTD: Tensor, student_BTD: Tensor, valid_BT: Tensor) -> Tensor:
    """``1 - cos(teacher, student)`` at each position, averaged over valid ones, (B,).

    Exactly 0 where student and teacher are the same bits.
    """
    t_BTD = F.normalize(teacher_BTD.float(), dim=-1)
    s_BTD = F.normalize(student_BTD.float(), dim=-1)
    # |t - s|^2 / 2 = 1 - cos for unit vectors, without the rounding of 1 - cos near 0
    return sequence_mean((t_BTD - s_BTD).square().sum(dim=-1) / 2, valid_BT)


def js_divergence(teacher_PK: Tensor, student_PK: Tensor) -> Tensor:
    """Jensen-Shannon divergence in nats between the softmaxes of two sets of logits.

    Args:
        teacher_PK: Logits, (P, K) for P positions; they get no gradient.
        student_PK: Logits, (P, K).

    Returns:
        Divergence at each position, (P,), within [0, log 2]; exactly 0 where both are
        the same bits.
    """
    return _JSDivergence.apply(teacher_PK.detach(), student_PK)


class _JSDivergence(torch.autograd.Function):
    """With its gradient in closed form: ``s (log(s/m) - sum s log(s/m)) / 2``."""

    @staticmethod
    def forward(ctx, teacher_PK, student_PK):
        log_t_PK = F.log_softmax(teacher_PK.float(), dim=-1)
        log_s_PK = F.log_softmax(student_PK.float(), dim=-1)
        difference_PK = log_s_PK - log_t_PK
        # log of mean over t, over s: exactly 0 where t = s, exact where they are far
        near_PK = F.softplus(difference_PK.abs().neg_()).sub_(math.log(2))
        log_m_over_t_PK = near_PK + difference_PK.clamp(min=0)
        log_m_over_s_PK = near_PK.sub_(difference_PK.clamp_(max=0))
        t_P = log_m_over_t_PK.mul_(log_t_PK.exp_()).sum(dim=-1)
        s_PK = log_s_PK.exp_()
        s_P = (s_PK * log_m_over_s_PK).sum(dim=-1)
        if ctx.needs_input_grad[1]:
            gradient_PK = s_PK.mul_(s_P[:, None] - log_m_over_s_PK).div_(2)
            ctx.save_for_backward(gradient_PK.to(student_PK.dtype))
        return (t_P + s_P) / -2

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_P):
        (gradient_PK,) = ctx.saved_tensors
        return None, gradient_PK * grad_P[:, None].to(gradient_PK.dtype)


def student_factors(
    pairs: Sequence[Factors], fresh: Factors, student_init: str
) -> Factors:
    """Where the student starts at one matrix: "the average value" of the experts.

    Args:
        pairs: The N experts' ``A_RD, B_OR``.
        fresh: The student's own fresh pair (A random, B zero), of its rank r.
        student_init: ``delta_svd``: truncated SVD of the mean product, exact when r is
            at least its rank; ``factor_mean``: mean A and mean B in the first rows, the
            rest of A as it was and of B zero; ``zero``: the fresh pair.

    Returns:
        ``A_RD, B_OR`` of the student's rank.

    Raises:
        ValueError: Unknown ``student_init``, or a mean that the rank cannot hold.
    """
    A_RD, B_OR = (factor.detach().clone() for factor in fresh)
    if student_init == "zero" or not pairs:
        return A_RD, B_OR
    r = A_RD.shape[0]
    weight_N = A_RD.new_full((len(pairs),), 1 / len(pairs))
    if student_init == "delta_svd":
        A_cat, B_cat = concatenate(pairs, weight_N)
        return truncated_svd(B_cat @ A_cat, r)
    if student_init != "factor_mean":
        raise ValueError(
            f"student_init must be one of {STUDENT_INITS}, but got {student_init!r}"
        )
    A_mean, B_mean = mean_factors(pairs, weight_N)
    if A_mean.shape[0] > r:
        raise ValueError(
            f"factor_mean needs a student of rank {A_mean.shape[0]} or more, got r={r}"
        )
    A_RD[: A_mean.shape[0]] = A_mean
    B_OR[:, : A_mean.shape[0]] = B_mean
    return A_RD, B_OR
