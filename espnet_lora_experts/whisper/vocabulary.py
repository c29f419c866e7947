"""Losses over the frozen vocabulary, without holding all scores at once.

The scores of a batch are Whisper's largest tensor by far: 300 positions of 51,865
tokens are 62 MB, and a loss passes over them several times. Here the scores of some
positions at a time are made, used for the losses and for their gradients by the
positions' states, and dropped. The losses see a few positions at a time, so that what
they pass over several times stays in the processor's cache.

Names of dimensions: N positions, C positions of a chunk, b of a block, D width,
K vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from espnet_lora_experts.experts.product import linear

CHUNK = 128
"""Positions in one product: 27 MB of float32 scores for 51,865 tokens."""
BLOCK = 8
"""Positions that the losses see at once on a CPU: 1.7 MB, twice as fast as 27 MB."""

Losses = Callable[..., tuple[Tensor, ...]]
"""Takes which positions as a slice, their scores (b, K) and those of each of ``others``
to values (b,) each."""


def over_vocabulary(
    states_ND: Tensor,
    W_KD: Tensor,
    losses: Losses,
    others: Sequence[Tensor] = (),
) -> tuple[Tensor, ...]:
    """Values per position from the scores ``states W^T``.

    Args:
        states_ND: The last layer's states.
        W_KD: The vocabulary's frozen weight, of the type of the products.
        losses: The losses, elementwise or along the vocabulary.
        others: Other states, (N, D), whose scores the losses need too: a teacher's.
            They get no gradient.

    Returns:
        What ``losses`` gives, of all positions, (N,) each; gradients reach
        ``states_ND``.

    Example:
        >>> states_ND, W_KD = torch.ones(3, 2, requires_grad=True), torch.eye(2)
        >>> (peak_N,) = over_vocabulary(states_ND, W_KD, lambda at, s: (s.amax(1),))
        >>> peak_N
        tensor([1., 1., 1.], grad_fn=<_InChunksBackward>)
    """
    others = [other_ND.detach().to(W_KD.dtype) for other_ND in others]
    if W_KD.requires_grad:  # full fine-tuning: the weight needs its gradient as well
        scores = [F.linear(x, W_KD) for x in (states_ND, *others)]
        return losses(slice(0, len(states_ND)), *scores)
    needed = torch.is_grad_enabled() and states_ND.requires_grad
    states = states_ND.to(W_KD.dtype), *others
    return _InChunks.apply(W_KD, losses, needed, *states)


class _InChunks(torch.autograd.Function):
    @staticmethod
    def forward(ctx, W_KD, losses, needed, *states):
        parts = _slices(0, len(states[0]), CHUNK)
        found = [_chunk(states, W_KD, losses, at, needed) for at in parts]
        values, grads = zip(*found, strict=True)
        outputs = _joined(values)
        ctx.learned = list(grads[0])
        ctx.save_for_backward(*_joined([grad.values() for grad in grads]))
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
        others = len(ctx.needs_input_grad) - 4
        return None, None, None, sum(terms[1:], terms[0]), *[None] * others


def _chunk(states, W_KD: Tensor, losses: Losses, at: slice, needed: bool):
    """Values of some positions and, of those that learn, gradients by their states."""
    scores = [linear(states_ND[at], W_KD) for states_ND in states]
    values, grads = [], {}
    spare = list(scores)  # a block's scores give way to its gradients
    for rows in _slices(0, len(scores[0]), BLOCK if W_KD.is_cpu else CHUNK):
        seen = slice(at.start + rows.start, at.start + rows.stop)
        found = _block([x_CK[rows] for x_CK in scores], losses, seen, needed)
        values.append([value_b.detach() for value_b in found[0]])
        for i, grad_bK in found[1].items():
            if i not in grads:
                grads[i] = spare.pop() if spare else torch.empty_like(scores[0])
            grads[i][rows] = grad_bK
    return _joined(values), {i: linear(grad, W_KD.T) for i, grad in grads.items()}


def _block(scores, losses: Losses, at: slice, needed: bool):
    """Values of a few positions and, of those that learn, gradients by their scores."""
    scores_bK = scores[0].requires_grad_(needed)
    with torch.set_grad_enabled(needed):
        values = losses(at, scores_bK, *scores[1:])
    learned = [i for i, value_b in enumerate(values) if value_b.requires_grad]
    return values, {
        i: _gradient(values[i], scores_bK, again=i != learned[-1]) for i in learned
    }


def _gradient(value_b: Tensor, scores_bK: Tensor, again: bool) -> Tensor:
    ones_b = torch.ones_like(value_b)
    return torch.autograd.grad(value_b, scores_bK, ones_b, retain_graph=again)[0]


def _slices(start: int, stop: int, size: int) -> list[slice]:
    """What covers the range in pieces of a size; one empty piece of an empty range."""
    starts = range(start, max(start + 1, stop), size)
    return [slice(i, min(i + size, stop)) for i in starts]


def _joined(pieces) -> list[Tensor]:
    """The first of all pieces as one, the second, and so on."""
    return [torch.cat(parts) for parts in zip(*pieces, strict=True)]
