"""The product's own backward is autograd's."""

import pytest
import torch

from espnet_lora_experts.experts import product
from espnet_lora_experts.experts.product import (
    cast_once,
    forget_cast,
    gated_linear,
    linear,
)

WHICH = [None, (0, 1, 0, 1), (2, 2, 0, 2), (0, 0, 0, 0)]


def tensors(shape, which):
    """x, W, bias, A and B: in double precision, all trained."""
    generator = torch.Generator().manual_seed(0)
    experts = () if which is None else (3,)
    shapes = [(*shape, 5), (6, 5), (6,), (*experts, 2, 5), (*experts, 6, 2)]
    return [
        torch.randn(s, generator=generator, dtype=torch.double).requires_grad_()
        for s in shapes
    ]


def plain(x, W, bias, A, B, which):
    rows = [
        row @ W.T
        + bias
        + row
        @ (A if which is None else A[which[b]]).T
        @ (B if which is None else B[which[b]]).T
        for b, row in enumerate(x)
    ]
    return torch.stack(rows)


@pytest.fixture(params=[False, True], ids=["mkl", "onednn"])
def library(request, monkeypatch):
    if request.param and not torch.backends.mkldnn.is_available():
        pytest.skip("this torch has no oneDNN")
    monkeypatch.setattr(product, "mkl_is_slow", lambda: request.param)
    return request.param


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(3, 5), (2, 3, 5), (0, 5), (1, 5)])
def test_either_library_gives_the_product(library, shape, bias):
    x, W, bias_O = torch.randn(shape), torch.randn(6, 5), torch.randn(6)
    bias_O = bias_O if bias else None
    for views in ((x, W), (x.mT.contiguous().mT, W.mT.contiguous().mT), (x, W[:0])):
        at = None if bias_O is None else bias_O[: len(views[1])]
        expected = torch.nn.functional.linear(*views, at)
        torch.testing.assert_close(linear(*views, at), expected)


def test_gradients_pass_either_library(library):
    x, W = torch.randn(3, 5, requires_grad=True), torch.randn(6, 5)
    (grad,) = torch.autograd.grad(linear(x, W).sum(), x)
    torch.testing.assert_close(grad, W.sum(0).expand(3, 5))


@pytest.mark.parametrize("which", WHICH)
def test_either_library_gives_gradients(library, which):
    given = [x.detach().float().requires_grad_() for x in tensors((4, 3), which)]
    grads = [
        torch.autograd.grad(f(*given, which).sin().sum(), given)
        for f in (gated_linear, plain)
    ]
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("frozen", [True, False])
def test_a_layer_without_a_pair_is_a_linear_layer(frozen):
    x, W, bias = tensors((4, 3), None)[:3]
    W.requires_grad_(not frozen)
    bias.requires_grad_(not frozen)
    trained = [t for t in (x, W, bias) if t.requires_grad]
    outputs = gated_linear(x, W, bias), torch.nn.functional.linear(x, W, bias)
    torch.testing.assert_close(*outputs)
    grads = [torch.autograd.grad(y.sin().sum(), trained) for y in outputs]
    torch.testing.assert_close(*grads)


@pytest.fixture(params=[False, True], ids=["runs", "batched"])
def device(request, monkeypatch):
    """The products as a CPU takes them, and as a GPU does."""
    monkeypatch.setattr(product, "in_one_product", lambda x: request.param)


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("which", WHICH)
@pytest.mark.parametrize("shape", [(4,), (4, 3), (4, 2, 3)])
def test_product_is_the_formula_and_its_gradient(which, shape):
    given = tensors(shape, which)
    torch.testing.assert_close(gated_linear(*given, which), plain(*given, which))
    assert torch.autograd.gradcheck(lambda *args: gated_linear(*args, which), given)


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("which", WHICH)
@pytest.mark.parametrize("frozen", [[0], [1, 2], [0, 1, 2], [3], [4], [1, 2, 3]])
def test_what_is_frozen_gets_no_gradient_and_the_rest_gets_its_own(frozen, which):
    given = tensors((4, 3), which)
    for i in frozen:
        given[i].requires_grad_(False)
    trained = [x for x in given if x.requires_grad]
    grads = [
        torch.autograd.grad(f(*given, which).sin().sum(), trained)
        for f in (gated_linear, plain)
    ]
    torch.testing.assert_close(*grads)


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("which", WHICH)
def test_a_gradient_without_memory_of_its_own_is_taken(which):
    """``expand`` makes gradients that no view can flatten."""
    given = tensors((4, 3), which)
    grads = [
        torch.autograd.grad(f(*given, which).sum(), given)
        for f in (gated_linear, plain)
    ]
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("which", WHICH)
def test_only_input_and_low_rank_products_are_kept(which):
    kept = []
    x, W, bias, A, B = tensors((4, 3), which)
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.append(t) or t, lambda t: t
    ):
        gated_linear(x, W, bias, A, B, which)
    given = {t.data_ptr() for t in (x, W, A, B)}
    extra = [t for t in kept if t.is_floating_point() and t.data_ptr() not in given]
    assert sum(t.numel() for t in extra) == 4 * 3 * 2  # x A^T


@pytest.mark.parametrize("which", WHICH)
def test_frozen_pairs_keep_nothing(which):
    """Only the input's gradient passes them: it needs neither x nor x A^T."""
    kept = []
    x, W, bias, A, B = tensors((4, 3), which)
    given = [x, *(t.requires_grad_(False) for t in (W, bias, A, B))]
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.append(t) or t, lambda t: t
    ):
        gated_linear(*given, which)
    weights = {t.data_ptr() for t in (W, A, B)}
    assert all(
        t.data_ptr() in weights for t in kept if t is not None and t.is_floating_point()
    )


def test_inference_does_not_spoil_later_training():
    x, W, bias, A, B = (t.detach().float() for t in tensors((2, 3), (1, 2)))
    linear = torch.nn.Linear(5, 6).requires_grad_(False)
    for mode in (torch.inference_mode(), torch.enable_grad()):
        with mode, torch.autocast("cpu", torch.bfloat16):
            trained = A.clone().requires_grad_()
            y = gated_linear(x, *cast_once(linear), trained, B, (1, 2))
    y.float().sum().backward()
    assert trained.grad is not None


@pytest.mark.usefixtures("device")
def test_experts_gradients_add_up_in_full_precision():
    """Sums over a batch's rows must not round to bfloat16 at every row."""
    x, W, bias, A, B = (t.detach().float() for t in tensors((4, 3), WHICH[1]))
    x, which = x[:1].expand(512, 3, 5), (1,) * 512
    A, B = A.requires_grad_(), B.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        gated_linear(x, W.bfloat16(), None, A, B, which).float().sum().backward()
        one = torch.autograd.grad(
            gated_linear(x[:1], W.bfloat16(), None, A, B, (1,)).float().sum(), A
        )[0]
    torch.testing.assert_close(A.grad, one * 512, rtol=1e-5, atol=1e-5)


def test_frozen_weights_are_cast_once_and_again_when_they_change():
    linear = torch.nn.Linear(3, 2).requires_grad_(False)
    assert cast_once(linear)[0] is linear.weight
    with torch.autocast("cpu", torch.bfloat16):
        W, bias = cast_once(linear)
        assert (W.dtype, bias.dtype) == (torch.bfloat16, torch.bfloat16)
        assert cast_once(linear)[0] is W
        linear.weight.mul_(2)
        assert torch.equal(cast_once(linear)[0], linear.weight.bfloat16())
        linear.weight.data = linear.weight.data + 1
        forget_cast(linear)
        assert torch.equal(cast_once(linear)[0], linear.weight.bfloat16())
        assert cast_once(linear)[0] is cast_once(linear)[0]
    assert cast_once(linear)[0] is linear.weight
    assert set(linear.state_dict()) == {"weight", "bias"}


def test_trained_weights_get_their_gradient_through_the_cast():
    linear = torch.nn.Linear(3, 2, bias=False)
    with torch.autocast("cpu", torch.bfloat16):
        W, bias = cast_once(linear)
    W.sum().backward()
    assert bias is None
    assert torch.equal(linear.weight.grad, torch.ones(2, 3))
