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

from functools import cache, lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def linear(x: Tensor, W_OD: Tensor, bias_O: Tensor | None = None) -> Tensor:
    """``F.linear`` by the faster of torch's libraries where no gradient is needed.

    In float32 torch calls MKL, which leaves AMD's processors half of their vectors:
    there oneDNN, the library of torch's products in bfloat16, is twice as fast.

    Args:
        x: Input, (..., D).
        W_OD: Weight, of x's type, in any memory order.
        bias_O: Bias, or None.
    """
    learns = torch.is_grad_enabled() and (x.requires_grad or W_OD.requires_grad)
    if x.is_cpu and x.dtype == torch.float32 and not learns and mkl_is_slow():
        return torch.ops.mkldnn._linear_pointwise(x, W_OD, bias_O, "none", [], "")
    return F.linear(x, W_OD, bias_O)


@cache
def mkl_is_slow() -> bool:
    """Whether this is a processor that MKL does not favour, and oneDNN is there."""
    if not torch.backends.mkldnn.is_available():
        return False
    cpus = Path("/proc/cpuinfo")
    return cpus.exists() and "AuthenticAMD" in cpus.read_text()


def gated_linear(
    x: Tensor,
    W_OD: Tensor,
    bias_O: Tensor | None,
    A: Tensor | None = None,
    B: Tensor | None = None,
    which: tuple[int, ...] | None = None,
) -> Tensor:
    """The layer's output with no pair, one pair for all rows, or a pair for each row.

    Args:
        x: Input, (B, ..., D).
        W_OD: Weight; frozen as a rule, else it gets its gradient.
        bias_O: Bias, or None.
        A: (R, D), or (E, R, D) of several experts; None: the layer alone.
        B: (O, R), or (E, O, R), or None.
        which: The expert of each row; None: ``A`` and ``B`` are one pair.

    Returns:
        Output, (B, ..., O), in the type of W.
    """
    which_B = None if which is None else as_index(which, x.device)
    if not torch.is_grad_enabled():
        return _forward(x.to(W_OD.dtype), W_OD, bias_O, A, B, which_B)[0]
    with torch.autocast(x.device.type, enabled=False):
        return _GatedLinear.apply(x, W_OD, bias_O, A, B, which_B)


@lru_cache(maxsize=16)  # the same in all layers of a model
def as_index(which: tuple[int, ...], device: torch.device) -> Tensor:
    """The rows' experts as a tensor, (B,)."""
    with torch.inference_mode(False):  # training may be the next to use it
        return torch.tensor(which, device=device)


def product_type(weight: Tensor) -> torch.dtype:
    """The type of the products with a weight: its own, or that of autocast."""
    device = weight.device.type
    enabled = torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if enabled else weight.dtype


def cast_once(linear: nn.Linear) -> tuple[Tensor, Tensor | None]:
    """A linear layer's weight and bias in the type of the products.

    Autocast would cast frozen weights again at every call; here they are cast when
    they are new or changed in place. Who writes through ``.data`` calls
    :func:`forget_cast`.

    Args:
        linear: The layer.
    """
    weight, bias, dtype = linear.weight, linear.bias, product_type(linear.weight)
    if dtype == weight.dtype:
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


def _forward(x, W_OD, bias_O, A, B, which_B) -> tuple[Tensor, Tensor | None]:
    """The output, and x A^T."""
    y = linear(x, W_OD, bias_O)
    if A is None:
        return y, None
    A_rows, B_rows = _pairs(A.to(x.dtype), B.to(x.dtype), which_B)
    h = _times(_rows(x, which_B), A_rows.mT)
    add_product(_rows(y, which_B), h, B_rows.mT)
    return y, h


class _GatedLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, W_OD, bias_O, A, B, which_B):
        ctx.types = [None if t is None else t.dtype for t in (x, A, B)]
        x, A, B = (None if t is None else t.to(W_OD.dtype) for t in (x, A, B))
        y, h = _forward(x, W_OD, bias_O, A, B, which_B)
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
        grad_y = grad_y.contiguous()
        grad_rows = _rows(grad_y, which_B)
        grad_x = grad_W = grad_A = grad_B = None
        if A is not None:
            A_rows, B_rows = _pairs(A, B, which_B)
            grad_h = _times(grad_rows, B_rows)
        if needs_x:
            grad_x = linear(grad_y, W_OD.T)
            if A is not None:
                add_product(_rows(grad_x, which_B), grad_h, A_rows)
            grad_x = grad_x.to(x_type)
        if needs_W:
            grad_W = grad_y.flatten(0, -2).T @ x.flatten(0, -2)
        if needs_A:
            grad_A = _sum(_times(grad_h.mT, _rows(x, which_B)), which_B, A, A_type)
        if needs_B:
            grad_B = _sum(_times(grad_rows.mT, h), which_B, B, B_type)
        grad_bias = grad_y.flatten(0, -2).sum(0) if needs_bias else None
        return grad_x, grad_W, grad_bias, grad_A, grad_B, None


def _rows(x: Tensor, which_B: Tensor | None) -> Tensor:
    """(N, D) where one pair is for all, (B, N, D) where each row has its own."""
    if which_B is None:
        return x.flatten(0, -2)
    return x[:, None] if x.dim() == 2 else x.flatten(1, -2)


def _pairs(A: Tensor, B: Tensor, which_B: Tensor | None) -> tuple[Tensor, Tensor]:
    """The pair of all rows, or each row's."""
    return (A, B) if which_B is None else (A[which_B], B[which_B])


def _times(a: Tensor, b: Tensor) -> Tensor:
    """``a b`` without a gradient."""
    return linear(a, b.mT) if b.dim() == 2 else a @ b


def add_product(y: Tensor, a: Tensor, b: Tensor) -> None:
    """``y += a b`` in place, in y's type; ``b`` may be one matrix for a batch of a."""
    a, b = a.to(y.dtype), b.to(y.dtype)
    if b.dim() == 2:
        y.flatten(0, -2).addmm_(a.flatten(0, -2), b)
    else:
        y.baddbmm_(a, b)


def _sum(grad: Tensor, which_B: Tensor | None, like: Tensor, dtype) -> Tensor:
    """Sums up the rows' gradients of each expert, in the type of its weight."""
    if which_B is None:
        return grad.to(dtype)
    return torch.zeros_like(like, dtype=dtype).index_add_(0, which_B, grad.to(dtype))
