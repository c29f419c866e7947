"""The router hears valid positions only, and each utterance by itself."""

import pytest
import torch

from espnet_lora_experts.whisper.router import POOLINGS, Router, Standardize


@pytest.fixture(params=POOLINGS)
def router(request):
    torch.manual_seed(0)
    return Router(8, ["es", "ru", "ja"], request.param).eval()


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


@pytest.fixture
def rows():
    """(N, D), whose dimensions have means and deviations of their own."""
    generator = torch.Generator().manual_seed(2)
    return torch.randn(50, 4, generator=generator) * torch.tensor([1.0, 9, 0.1, 3]) + 5


def test_training_learns_mean_and_variance_of_all_rows(rows):
    standardize = Standardize(4)
    for batch_BD in rows.split([7, 1, 30, 12]):
        standardize(batch_BD)
    torch.testing.assert_close(standardize.mean_D, rows.mean(dim=0))
    torch.testing.assert_close(standardize.var_D, rows.var(dim=0, correction=0))
    y_BD = standardize.eval()(rows)
    torch.testing.assert_close(y_BD.mean(dim=0), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(y_BD.std(dim=0, correction=0), torch.ones(4))


def test_a_row_in_training_does_not_depend_on_its_batch(rows):
    standardize = Standardize(4)
    standardize(rows[:20])
    state = {key: value.clone() for key, value in standardize.state_dict().items()}
    together_BD = standardize(rows[20:30])
    standardize.load_state_dict(state)
    assert torch.equal(standardize(rows[20:21]), together_BD[:1])


def test_nothing_is_learned_but_in_training(rows):
    standardize = Standardize(4)
    standardize(rows)
    before = [value.clone() for value in standardize.state_dict().values()]
    standardize.eval()(rows * 2)
    assert all(map(torch.equal, before, standardize.state_dict().values()))


def test_rows_that_are_not_finite_are_not_learned(rows):
    spoiled, clean = Standardize(4), Standardize(4)
    spoiled(torch.full((2, 4), torch.nan))
    for batch_BD in rows.split(25):
        spoiled(torch.cat([batch_BD, torch.full((1, 4), torch.inf)]))
        clean(batch_BD)
    for ours, expected in zip(spoiled.buffers(), clean.buffers(), strict=True):
        torch.testing.assert_close(ours, expected)


def test_tensors_of_another_router_are_no_start():
    router, state = Router(8, ["es", "ru"]), Router(8, ["es"]).state_dict()
    del state["standardize.mean_D"]
    with pytest.raises(ValueError, match="trained by another version"):
        router.start_from(state, [0])
