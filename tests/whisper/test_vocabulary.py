"""Losses in chunks are the losses of all scores at once, with their gradients."""

import pytest
import torch
import torch.nn.functional as F

from espnet_lora_experts.experts.distill import js_divergence
from espnet_lora_experts.whisper import vocabulary
from espnet_lora_experts.whisper.vocabulary import over_vocabulary

N, D, K = 11, 5, 37


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(vocabulary, "CHUNK", 4)


@pytest.fixture
def given():
    generator = torch.Generator().manual_seed(0)
    states, teacher = torch.randn(2, N, D, generator=generator)
    W = torch.randn(K, D, generator=generator)
    targets = torch.randint(0, K, (N,), generator=generator)
    upstream = torch.randn(2, N, generator=generator)
    return states.requires_grad_(), teacher, W, targets, upstream


def losses_of(targets):
    def losses(at, scores_CK, teacher_CK):
        loss = F.cross_entropy(
            scores_CK, targets[at], reduction="none", label_smoothing=0.1
        )
        hit = (scores_CK.argmax(-1) == targets[at]).float()
        return loss, hit, js_divergence(teacher_CK, scores_CK)

    return losses


@pytest.mark.parametrize("block", [1, 3, 64])
@pytest.mark.parametrize("chunk", [1, 4, 11, 64])
def test_chunks_of_blocks_are_the_whole(given, chunk, block, monkeypatch):
    monkeypatch.setattr(vocabulary, "BLOCK", block)
    monkeypatch.setattr(vocabulary, "CHUNK", chunk)
    states, teacher, W, targets, upstream = given
    losses = losses_of(targets)
    got = over_vocabulary(states, W, losses, [teacher])
    expected = losses(slice(None), states @ W.T, teacher @ W.T)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b)
    assert [x.requires_grad for x in got] == [True, False, True]
    grads = [
        torch.autograd.grad((upstream[0] * x[0] + upstream[1] * x[2]).sum(), states)[0]
        for x in (got, expected)
    ]
    torch.testing.assert_close(*grads)


def test_a_loss_that_is_not_used_gets_no_weight(given):
    states, teacher, W, targets, upstream = given
    losses = losses_of(targets)
    got = over_vocabulary(states, W, losses, [teacher])[0] @ upstream[0]
    expected = losses(slice(None), states @ W.T, teacher @ W.T)[0] @ upstream[0]
    torch.testing.assert_close(
        torch.autograd.grad(got, states), torch.autograd.grad(expected, states)
    )


def test_a_trained_vocabulary_gets_its_gradient(given):
    states, teacher, W, targets, _ = given
    W.requires_grad_()
    losses = losses_of(targets)
    grads = [
        torch.autograd.grad(values[0].sum(), [states, W])
        for values in (
            over_vocabulary(states, W, losses, [teacher]),
            losses(slice(None), states @ W.T, teacher @ W.T),
        )
    ]
    torch.testing.assert_close(*grads)


def test_no_gradient_is_computed_where_none_is_needed(given):
    states, teacher, W, targets, _ = given

    def losses(at, scores_CK):
        assert not torch.is_grad_enabled()
        return (scores_CK.amax(1),)

    with torch.no_grad():
        over_vocabulary(states, W, losses)
    over_vocabulary(states.detach(), W, losses)


def test_no_positions_have_no_values(given):
    states, teacher, W, targets, _ = given
    losses = losses_of(targets[:0])
    values = over_vocabulary(states[:0], W, losses, [teacher[:0]])
    assert [len(x) for x in values] == [0, 0, 0]
    values[0].sum().backward()


def test_all_scores_never_exist_at_once(given):
    states, *_, W, _, _ = given
    sizes = []
    over_vocabulary(states, W, lambda at, s: (sizes.append(len(s)), s.amax(1))[1:])
    assert sizes == [4, 4, 3]
