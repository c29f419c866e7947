"""Losses over the frozen vocabulary, without holding all scores at once.

The scores of a batch are Whisper's largest tensor by far: 300 positions of 51,865
tokens are 62 MB, and a loss passes over them several times. Here the scores of some
positions at a time are made, used for the losses and for their gradients by the
positions' states, and dropped.

Names of dimensions: N positions, C positions of a chunk, D width, K vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from espnet_lora_experts.experts.product import linear

CHUNK = 128
"""Positions at a time: 27 MB of float32 scores for 51,865 tokens."""

Losses = Callable[[Tensor, slice], tuple[Tensor, ...]]
"""Takes scores (C, K) and the slice of positions they are of to values (C,) each."""


def over_vocabulary(
    states_ND: Tensor, W_KD: Tensor, losses: Losses, chunk: int = CHUNK
) -> tuple[Tensor, ...]:
    """Values per position from the scores ``states W^T``.

    Args:
        states_ND: The last layer's states.
        W_KD: The vocabulary's frozen weight, of the type of the products.
        losses: The losses; they may use other tensors, which get no gradient.
        chunk: C.

    Returns:
        What ``losses`` gives, of all positions, (N,) each; gradients reach
        ``states_ND``.

    Example:
        >>> states_ND, W_KD = torch.ones(3, 2, requires_grad=True), torch.eye(2)
        >>> (peak_N,) = over_vocabulary(states_ND, W_KD, lambda s, at: (s.amax(1),))
        >>> peak_N
        tensor([1., 1., 1.], grad_fn=<_InChunksBackward>)
    """
    if W_KD.requires_grad:  # full fine-tuning: the weight needs its gradient as well
        return losses(F.linear(states_ND, W_KD), slice(0, len(states_ND)))
    needed = torch.is_grad_enabled() and states_ND.requires_grad
    return _InChunks.apply(states_ND.to(W_KD.dtype), W_KD, losses, chunk, needed)


class _InChunks(torch.autograd.Function):
    @staticmethod
    def forward(ctx, states_ND, W_KD, losses, chunk, needed):
        starts = range(0, max(1, len(states_ND)), chunk)
        parts = [slice(start, start + chunk) for start in starts]
        found = [_chunk(states_ND[at], W_KD, losses, at, needed) for at in parts]
        values, grads = zip(*found, strict=True)
        outputs = [torch.cat(pieces) for pieces in zip(*values, strict=True)]
        ctx.learned = [i for i, grad in enumerate(grads[0]) if grad is not None]
        ctx.save_for_backward(*(torch.cat([g[i] for g in grads]) for i in ctx.learned))
        fixed = [x for i, x in enumerate(outputs) if i not in ctx.learned]
        ctx.mark_non_differentiable(*fixed)
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx, *grad_values):
        terms = [
            grad_values[i][:, None].to(saved_ND.dtype) * saved_ND
            for i, saved_ND in zip(ctx.learned, ctx.saved_tensors, strict=True)
        ]
        return sum(terms[1:], terms[0]), None, None, None, None


def _chunk(states_CD: Tensor, W_KD: Tensor, losses: Losses, at: slice, needed: bool):
    """Values of some positions and, per value, the gradient by their states."""
    scores_CK = linear(states_CD, W_KD).requires_grad_(needed)
    with torch.set_grad_enabled(needed):
        values = losses(scores_CK, at)
    learned = [value_C for value_C in values if value_C.requires_grad]
    grads = [
        linear(_gradient(value_C, scores_CK, value_C is not learned[-1]), W_KD.T)
        if value_C.requires_grad
        else None
        for value_C in values
    ]
    return [value_C.detach() for value_C in values], grads


def _gradient(value_C: Tensor, scores_CK: Tensor, again: bool) -> Tensor:
    ones_C = torch.ones_like(value_C)
    return torch.autograd.grad(value_C, scores_CK, ones_C, retain_graph=again)[0]
