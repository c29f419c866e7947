"""Attention by two products is torch's attention."""

import pytest
import torch
import torch.nn.functional as F

from espnet_lora_experts.whisper import attention
from espnet_lora_experts.whisper.attention import attend

B, H, T, P, D = 3, 2, 5, 7, 8
NEAR = {"rtol": 0.02, "atol": 0.02}  # bfloat16 has eight bits


def given(queries=T, dtype=torch.bfloat16):
    generator = torch.Generator().manual_seed(0)
    shapes = [(B, H, queries, D), (B, H, P, D), (B, H, P, D)]
    return [
        torch.randn(s, generator=generator).to(dtype).requires_grad_() for s in shapes
    ]


@pytest.fixture
def by_torch(monkeypatch):
    """Whether torch's own kernel was called."""
    called = []
    own = F.scaled_dot_product_attention

    def spy(*args, **kwargs):
        called.append(True)
        return own(*args, **kwargs)

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    return called


def padding():
    valid_BP = torch.arange(P) < torch.tensor([[7], [4], [1]])
    return valid_BP[:, None, None, :]


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("mask", [None, padding()])
def test_products_are_torchs_attention_with_its_gradients(mask, causal, by_torch):
    if causal and mask is not None:
        pytest.skip("torch takes one or the other")
    tensors = given(P if causal else T)
    got = attend(*tensors, mask, is_causal=causal)
    assert not by_torch and got.dtype == torch.bfloat16
    exact = [x.detach().float().requires_grad_() for x in tensors]
    expected = attend(*exact, mask, is_causal=causal)
    assert by_torch
    torch.testing.assert_close(got.float(), expected, **NEAR)
    grads = torch.autograd.grad(got.float().square().sum(), tensors)
    wanted = torch.autograd.grad(expected.square().sum(), exact)
    for grad, want in zip(grads, wanted, strict=True):
        torch.testing.assert_close(grad.float(), want, rtol=0.05, atol=0.05)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("mask", [None, padding(), padding().expand(-1, H, T, -1)])
def test_long_sequences_go_head_by_head(mask, dtype, by_torch, monkeypatch):
    """Where no gradient is needed, and in float32 where MKL is slow."""
    monkeypatch.setattr(attention, "LONG", T * P)
    monkeypatch.setattr(attention, "MOST_WEIGHTS", 0)
    monkeypatch.setattr(attention, "mkl_is_slow", lambda: True)
    tensors = given(dtype=dtype)
    got = attend(*tensors, mask)
    assert not by_torch and got.dtype == dtype
    exact = [x.float() for x in tensors]
    monkeypatch.setattr(attention, "mkl_is_slow", lambda: False)
    near = {} if dtype == torch.float32 else NEAR
    torch.testing.assert_close(got.float(), attend(*exact, mask), **near)
    assert by_torch


def test_head_by_head_is_not_for_gradients(by_torch, monkeypatch):
    monkeypatch.setattr(attention, "LONG", T * P)
    monkeypatch.setattr(attention, "mkl_is_slow", lambda: True)
    assert attend(*given(dtype=torch.float32), None).requires_grad and by_torch


def test_what_is_masked_is_not_seen():
    query, keys, values = given()
    changed = values.detach().clone()
    changed[1, :, 4:] = 9.0
    before, after = (attend(query, keys, v, padding()) for v in (values, changed))
    assert torch.equal(before, after)


def test_long_sequences_and_other_types_stay_with_torch(by_torch, monkeypatch):
    attend(*given(dtype=torch.float32), None)
    assert len(by_torch) == 1
    monkeypatch.setattr(attention, "MOST_WEIGHTS", B * H * T * P)
    attend(*given(), None)
    assert len(by_torch) == 1
    monkeypatch.setattr(attention, "MOST_WEIGHTS", B * H * T * P - 1)
    attend(*given(), None)
    assert len(by_torch) == 2


def test_whisper_in_transformers_uses_it(backbone, monkeypatch):
    """Its own forward pass, masks included, gives what it gave before."""
    hf, ids = backbone.hf, torch.tensor([[1, 2, 3]])
    mel = torch.randn(1, 80, 2 * hf.config.max_source_positions)
    ours = hf(input_features=mel, decoder_input_ids=ids).logits
    hf.set_attn_implementation("eager")
    plain = hf(input_features=mel, decoder_input_ids=ids).logits
    torch.testing.assert_close(ours, plain)


def test_it_is_not_written_into_a_models_config(backbone, tmp_path):
    backbone.hf.save_pretrained(tmp_path)
    assert attention.NAME not in (tmp_path / "config.json").read_text()
