"""Cosines from factors equal those of the products."""

import torch
import torch.nn.functional as F

from espnet_lora_experts.experts.similarity import inner_product, similarities

NAMES = ["es", "ru", "ja"]


def delta(layer, name):
    A_RD, B_OR = layer.factors(name)
    return (B_OR @ A_RD).flatten()


def test_cosines_are_those_of_the_weight_changes(trio):
    found = similarities(trio.bank, NAMES)
    assert set(found) == set(trio.bank.layers)
    for key, layer in trio.bank.layers.items():
        deltas = torch.stack([delta(layer, name) for name in NAMES])
        expected = F.cosine_similarity(deltas[:, None], deltas[None], dim=-1)
        torch.testing.assert_close(found[key], expected.detach(), atol=1e-5, rtol=1e-4)


def test_ranks_may_differ():
    torch.manual_seed(0)
    first = torch.randn(2, 5), torch.randn(4, 2)
    second = torch.randn(3, 5), torch.randn(4, 3)
    expected = ((first[1] @ first[0]) * (second[1] @ second[0])).sum()
    torch.testing.assert_close(inner_product(first, second), expected)


def test_an_expert_that_does_not_touch_a_layer_has_no_cosine(backbone, add_random):
    add_random(backbone.bank, ["es"])
    add_random(backbone.bank, ["ru"], target_modules=["q_proj"])
    found = similarities(backbone.bank, ["es", "ru"])
    fc1 = found["model.encoder.layers.0.fc1"]
    assert fc1[0, 0].isclose(torch.tensor(1.0)) and fc1[0, 1].isnan()
    assert not found["model.encoder.layers.0.self_attn.q_proj"].isnan().any()
