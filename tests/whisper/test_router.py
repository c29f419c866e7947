"""The router hears valid positions only, and each utterance by itself."""

import pytest
import torch

from espnet_lora_experts.whisper.router import POOLINGS, Router


@pytest.fixture(params=POOLINGS)
def router(request):
    torch.manual_seed(0)
    return Router(8, ["es", "ru", "ja"], request.param)


@pytest.fixture
def states():
    """(B, P, D) and valid positions of 3, 7 and 5."""
    generator = torch.Generator().manual_seed(1)
    x_BPD = torch.randn(3, 7, 8, generator=generator)
    return x_BPD, torch.arange(7) < torch.tensor([[3], [7], [5]])


@pytest.mark.parametrize("junk", [0.0, 1e6])
def test_padding_is_not_heard(router, states, junk):
    x_BPD, valid_BP = states
    loud_BPD = (
        x_BPD.masked_fill(~valid_BP[..., None], junk) + junk * ~valid_BP[..., None]
    )
    assert torch.equal(router(loud_BPD, valid_BP), router(x_BPD, valid_BP))


def test_batch_is_each_utterance_alone(router, states):
    x_BPD, valid_BP = states
    logits_BN = router(x_BPD, valid_BP)
    for i, length in enumerate(valid_BP.sum(dim=1).tolist()):
        alone = x_BPD[i : i + 1, :length], valid_BP[i : i + 1, :length]
        torch.testing.assert_close(logits_BN[i : i + 1], router(*alone))


def test_every_valid_position_is_heard(router, states):
    x_BPD, valid_BP = states
    x_BPD.requires_grad_()
    router(x_BPD, valid_BP)[:, 0].sum().backward()
    assert torch.equal(x_BPD.grad.abs().sum(dim=-1) > 0, valid_BP)


def test_loud_frames_are_normalised(router, states):
    x_BPD, valid_BP = states
    gain_BP1 = torch.tensor([1.0, 30, 5, 100, 1, 7, 2])[None, :, None]
    torch.testing.assert_close(
        router(gain_BP1 * x_BPD, valid_BP),
        router(x_BPD, valid_BP),
        atol=1e-4,
        rtol=1e-3,
    )


def test_half_precision_states_are_read_in_float32(router, states):
    x_BPD, valid_BP = states[0].bfloat16(), states[1]
    assert torch.equal(router(x_BPD, valid_BP), router(x_BPD.float(), valid_BP))


def test_route_is_the_most_probable_language():
    router = Router(8, ["es", "ru", "ja"])
    logits_BN = torch.tensor([[0.0, 3, 1], [2, 1, 0], [-3, -2, -1]])
    assert router.route(logits_BN) == ["ru", "es", "ja"]


def test_unknown_pooling_is_an_error():
    with pytest.raises(ValueError, match="pooling must be one of .* but got 'max'"):
        Router(8, ["es"], "max")
