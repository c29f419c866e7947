r"""The product of a frozen linear layer with experts, forward and backward.

.. math:: y_b = x_b W^T + x_b A_{i(b)}^T B_{i(b)}^T

i(b) is row b's expert. Autograd would sum up the two parts, and their gradients, in
passes over memory of their own; here the low-rank products are added in place. Of the
results on the way only x and x A^T are kept, and of those what a gradient needs. Rows
with different experts are one batched product.

Names of dimensions: B rows, N positions, D input width, O output width, R rank,
E experts.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def gated_linear(
    x: Tensor,
    W_OD: Tensor,
    bias_O: Tensor | None,
    A: Tensor,
    B: Tensor,
    which: tuple[int, ...] | None = None,
) -> Tensor:
    """The layer's output with one pair for all rows, or a pair for each row.

    Args:
        x: Input, (B, ..., D).
        W_OD: Weight; frozen as a rule, else it gets its gradient.
        bias_O: Bias, or None.
        A: (R, D), or (E, R, D) of several experts.
        B: (O, R), or (E, O, R).
        which: The expert of each row; None: ``A`` and ``B`` are one pair.

    Returns:
        Output, (B, ..., O), in the type of W.
    """
    which_B = None if which is None else as_index(which, x.device)
    with torch.autocast(x.device.type, enabled=False):
        return _GatedLinear.apply(x, W_OD, bias_O, A, B, which_B)


@lru_cache(maxsize=16)  # the same in all layers of a model
def as_index(which: tuple[int, ...], device: torch.device) -> Tensor:
    """The rows' experts as a tensor, (B,)."""
    with torch.inference_mode(False):  # training may be the next to use it
        return torch.tensor(which, device=device)


def cast_once(linear: nn.Linear, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """A linear layer's weight and bias in the type of the products.

    Autocast would cast frozen weights again at every call; here they are cast when
    they are new or changed in place. Who writes through ``.data`` calls
    :func:`forget_cast`.

    Args:
        linear: The layer.
        x: An input: its device says which autocast may be in force.
    """
    device, weight, bias = x.device.type, linear.weight, linear.bias
    dtype = torch.get_autocast_dtype(device)
    if not torch.is_autocast_enabled(device) or dtype == weight.dtype:
        return weight, bias
    if weight.requires_grad:
        return weight.to(dtype), None if bias is None else bias.to(dtype)
    state = dtype, weight.device, weight._version
    known, *pair = getattr(linear, "_cast", (None,))
    if known != state:
        with torch.inference_mode(False), torch.no_grad():
            pair = [weight.to(dtype), None if bias is None else bias.to(dtype)]
        setattr(linear, "_cast", (state, *pair))  # noqa: B010
    return pair[0], pair[1]


def forget_cast(linear: nn.Module) -> None:
    """Makes :func:`cast_once` look at the layer again."""
    linear.__dict__.pop("_cast", None)


class _GatedLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, W_OD, bias_O, A, B, which_B):
        ctx.types = x.dtype, A.dtype, B.dtype
        x, A, B = (tensor.to(W_OD.dtype) for tensor in (x, A, B))
        A_rows, B_rows = (A, B) if which_B is None else (A[which_B], B[which_B])
        y = F.linear(x, W_OD, bias_O)
        h = _rows(x, which_B) @ A_rows.mT
        _add_product(_rows(y, which_B), h, B_rows.mT)
        _, needs_W, _, needs_A, needs_B, _ = ctx.needs_input_grad
        kept = x if needs_W or needs_A else None, h if needs_B else None
        ctx.save_for_backward(W_OD, A, B, which_B, *kept)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_y):
        W_OD, A, B, which_B, x, h = ctx.saved_tensors
        needs_x, needs_W, needs_bias, needs_A, needs_B, _ = ctx.needs_input_grad
        x_type, A_type, B_type = ctx.types
        A_rows, B_rows = (A, B) if which_B is None else (A[which_B], B[which_B])
        grad_y = grad_y.contiguous()
        grad_rows = _rows(grad_y, which_B)
        grad_h = grad_rows @ B_rows
        grad_x = grad_W = grad_A = grad_B = None
        if needs_x:
            grad_x = grad_y @ W_OD
            _add_product(_rows(grad_x, which_B), grad_h, A_rows)
            grad_x = grad_x.to(x_type)
        if needs_W:
            grad_W = grad_y.flatten(0, -2).T @ x.flatten(0, -2)
        if needs_A:
            grad_A = _sum(grad_h.mT @ _rows(x, which_B), which_B, A, A_type)
        if needs_B:
            grad_B = _sum(grad_rows.mT @ h, which_B, B, B_type)
        grad_bias = grad_y.flatten(0, -2).sum(0) if needs_bias else None
        return grad_x, grad_W, grad_bias, grad_A, grad_B, None


def _rows(x: Tensor, which_B: Tensor | None) -> Tensor:
    """(N, D) where one pair is for all, (B, N, D) where each row has its own."""
    if which_B is None:
        return x.flatten(0, -2)
    return x[:, None] if x.dim() == 2 else x.flatten(1, -2)


def _add_product(y: Tensor, a: Tensor, b: Tensor) -> None:
    """``y += a b`` in place."""
    (y.addmm_ if y.dim() == 2 else y.baddbmm_)(a, b)


def _sum(grad: Tensor, which_B: Tensor | None, like: Tensor, dtype) -> Tensor:
    """Sums up the rows' gradients of each expert, in the type of its weight."""
    if which_B is None:
        return grad.to(dtype)
    return torch.zeros_like(like, dtype=dtype).index_add_(0, which_B, grad.to(dtype))
