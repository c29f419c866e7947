"""A gate names every row once, whatever the order of the batch."""

import pytest
import torch

from espnet_lora_experts.experts.fusion import Fusion
from espnet_lora_experts.experts.gate import (
    VANILLA,
    Packed,
    everywhere,
    fused,
    one_hot,
    soft,
)


@pytest.mark.parametrize(
    ("names", "own"),
    [
        (["es", "es", "ru"], (0, 0, 1)),
        (["ru", "es", "ru", "ru", "ja"], (0, 1, 0, 0, 2)),
    ],
)
def test_one_hot_names_every_rows_own_pair(bank, names, own):
    (term,) = one_hot(names)
    assert term.which == own
    layer = bank.layers["first"]
    A_ERD, B_EOR = term.factors(layer)
    for name, e in zip(names, own, strict=True):
        assert torch.equal(A_ERD[e], layer.factors(name)[0])
        assert torch.equal(B_EOR[e], layer.factors(name)[1])


def test_one_expert_for_all_rows_is_everywhere(bank):
    assert one_hot([]) == VANILLA
    (term,), layer = one_hot(["es"] * 3), bank.layers["first"]
    assert term.which is None
    assert term.factors(layer)[0] is layer.factors("es")[0]


def test_experts_of_other_ranks_and_layers_are_filled_up_with_zeros(bank, add_random):
    add_random(bank, ["small"], r=1, target_modules=["first"])
    (term,) = one_hot(["small", "es"])
    for key, layer in bank.layers.items():
        A_ERD, B_EOR = term.factors(layer)
        product = B_EOR @ A_ERD
        A_RD, B_OR = layer.factors("es")
        torch.testing.assert_close(product[1], B_OR @ A_RD)
        pair = layer.factors("small")
        assert (pair is None) == (key == "second")
        expected = torch.zeros_like(product[0]) if pair is None else pair[1] @ pair[0]
        torch.testing.assert_close(product[0], expected)


def test_soft_weighs_each_expert_by_its_column(bank):
    weight_BE = torch.tensor([[0.1, 0.9], [0.7, 0.3]])
    gate = soft(["ru", "es"], weight_BE)
    layer = bank.layers["first"]
    for term, name, weight_B in zip(gate, ["ru", "es"], weight_BE.T, strict=True):
        assert term.which is None
        assert torch.equal(term.weight(layer), weight_B[:, None])
        assert term.factors(layer)[1] is layer.factors(name)[1]


def test_soft_needs_a_weight_for_each_expert():
    with pytest.raises(ValueError, match=r"3 columns.*got shape \(4, 2\)"):
        soft(["es", "ru", "ja"], torch.ones(4, 2))


def test_gates_for_all_rows_do_not_know_the_batch(bank):
    fusion = Fusion(["es", "ru"], ["first"])
    assert VANILLA == ()
    for gate in everywhere("es"), fused(fusion):
        assert [(term.which, term.weight) for term in gate] == [(None, None)]


@pytest.mark.parametrize("names", [["es", "ru", "es"], ["ja", "ja", "ja"]])
def test_packed_experts_are_one_hot(bank, x, names):
    packed = Packed(["ja", "es", "ru"] if len(set(names)) > 1 else names[:1])
    rows = [*names, names[0]][: len(x)]
    with torch.no_grad():
        with bank.using(one_hot(rows)):
            expected = bank.model(x)
        with bank.using(packed.gate(rows)):
            torch.testing.assert_close(bank.model(x), expected)


def test_packed_experts_may_differ_in_rank_and_layers(bank, x, add_random):
    add_random(bank, ["small"], r=1, target_modules=["first"])
    rows = ["small", "es", "small", "ru"][: len(x)]
    with torch.no_grad():
        with bank.using(one_hot(rows)):
            expected = bank.model(x)
        with bank.using(Packed(["es", "small", "ru"]).gate(rows)):
            torch.testing.assert_close(bank.model(x), expected)


def test_packed_experts_are_soft_too(bank, x, add_random):
    add_random(bank, ["small"], r=1, target_modules=["first"])
    names, weight_BE = ["es", "small", "ru"], torch.rand(len(x), 3)
    with torch.no_grad():
        with bank.using(soft(names, weight_BE)):
            expected = bank.model(x)
        with bank.using(Packed(names).soft(weight_BE)):
            torch.testing.assert_close(bank.model(x), expected)
