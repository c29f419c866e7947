r"""The product of a frozen linear layer with experts, forward and backward.

.. math:: y_b = x_b W^T + x_b A_{i(b)}^T B_{i(b)}^T

i(b) is row b's expert. Autograd would sum up the two parts, and their gradients, in
passes over memory of their own; here the low-rank products are added in place. Of the
results on the way only x and x A^T are kept, and of those what a gradient needs. Rows
with different experts are one product for each run of rows with one expert on a CPU,
which copies no factors, and one batched product on a GPU, which starts fewer kernels.

Names of dimensions: B rows, N positions, D input width, O output width, R rank,
E experts.
"""

from __future__ import annotations

from functools import cache, lru_cache
from itertools import pairwise
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
    if not torch.is_grad_enabled():
        return _forward(x.to(W_OD.dtype), W_OD, bias_O, A, B, which)[0]
    with torch.autocast(x.device.type, enabled=False):
        return _GatedLinear.apply(x, W_OD, bias_O, A, B, which)


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


def _forward(x, W_OD, bias_O, A, B, which) -> tuple[Tensor, Tensor | None]:
    """The output, and x A^T."""
    y = linear(x, W_OD, bias_O)
    if A is None:
        return y, None
    h = _times(x, A.to(x.dtype).mT, which)
    _add_times(y, h, B.to(x.dtype).mT, which)
    return y, h


class _GatedLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, W_OD, bias_O, A, B, which):
        ctx.types = [None if t is None else t.dtype for t in (x, A, B)]
        x, A, B = (None if t is None else t.to(W_OD.dtype) for t in (x, A, B))
        y, h = _forward(x, W_OD, bias_O, A, B, which)
        _, needs_W, _, needs_A, needs_B, _ = ctx.needs_input_grad
        kept = x if needs_W or needs_A else None, h if needs_B else None
        ctx.which = which
        ctx.save_for_backward(W_OD, A, B, *kept)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_y):
        W_OD, A, B, x, h = ctx.saved_tensors
        needs_x, needs_W, needs_bias, needs_A, needs_B, _ = ctx.needs_input_grad
        x_type, A_type, B_type = ctx.types
        grad_y, which = grad_y.contiguous(), ctx.which
        grad_x = grad_W = grad_A = grad_B = None
        if A is not None and (needs_x or needs_A):
            grad_h = _times(grad_y, B, which)
        if needs_x:
            grad_x = linear(grad_y, W_OD.T)
            if A is not None:
                _add_times(grad_x, grad_h, A, which)
            grad_x = grad_x.to(x_type)
        if needs_W:
            grad_W = grad_y.flatten(0, -2).T @ x.flatten(0, -2)
        if needs_A:
            grad_A = _sum_times(grad_h, x, which, A, A_type)
        if needs_B:
            grad_B = _sum_times(grad_y, h, which, B, B_type)
        grad_bias = grad_y.flatten(0, -2).sum(0) if needs_bias else None
        return grad_x, grad_W, grad_bias, grad_A, grad_B, None


@lru_cache(maxsize=16)  # the same in all layers of a model
def _runs(which: tuple[int, ...]) -> list[tuple[int, slice]]:
    """Neighbouring rows with one expert: the expert and the rows."""
    ends = [b for b in range(1, len(which) + 1) if which[b - 1 : b] != which[b : b + 1]]
    return [(which[start], slice(start, end)) for start, end in pairwise([0, *ends])]


def in_one_product(x: Tensor) -> bool:
    """Whether rows with different experts are one batched product."""
    return not x.is_cpu


def _rows(x: Tensor) -> Tensor:
    """(B, N, D)."""
    return x[:, None] if x.dim() == 2 else x.flatten(1, -2)


def _times(x: Tensor, M: Tensor, which: tuple[int, ...] | None) -> Tensor:
    """``x_b M_i(b)``, (B, ..., K), for M of (D, K), or of (E, D, K)."""
    if which is None:
        return linear(x, M.mT)
    if in_one_product(x):
        return (_rows(x) @ M[as_index(which, x.device)]).view(*x.shape[:-1], -1)
    y = x.new_empty(*x.shape[:-1], M.shape[-1])
    for e, rows in _runs(which):
        torch.mm(x[rows].flatten(0, -2), M[e], out=y[rows].flatten(0, -2))
    return y


def _add_times(y: Tensor, x: Tensor, M: Tensor, which: tuple[int, ...] | None) -> None:
    """``y_b += x_b M_i(b)`` in place."""
    if which is None:
        add_product(y, x, M)
    elif in_one_product(x):
        add_product(_rows(y), _rows(x), M[as_index(which, x.device)])
    else:
        for e, rows in _runs(which):
            add_product(y[rows], x[rows], M[e])


def add_product(y: Tensor, a: Tensor, b: Tensor) -> None:
    """``y += a b`` in place, in y's type; ``b`` may be one matrix for a batch of a."""
    a, b = a.to(y.dtype), b.to(y.dtype)
    if b.dim() == 2:
        y.flatten(0, -2).addmm_(a.flatten(0, -2), b)
    else:
        y.baddbmm_(a, b)


def _sum_times(
    a: Tensor, b: Tensor, which: tuple[int, ...] | None, like: Tensor, dtype
) -> Tensor:
    """Sum over the rows of ``a_b^T b_b``, of each expert, in the type of its weight."""
    if which is None:
        return linear(a.flatten(0, -2).T, b.flatten(0, -2).T).to(dtype)
    total = torch.zeros_like(like, dtype=dtype)
    if in_one_product(a):
        each = _rows(a).mT @ _rows(b)
        return total.index_add_(0, as_index(which, a.device), each.to(dtype))
    for e, rows in _runs(which):
        total[e] += a[rows].flatten(0, -2).T @ b[rows].flatten(0, -2)
    return total
