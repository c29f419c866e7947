"""A gate names every row once, whatever the order of the batch."""

import pytest
import torch

from espnet_lora_experts.experts.fusion import Fusion
from espnet_lora_experts.experts.gate import (
    EVERY_ROW,
    VANILLA,
    everywhere,
    fused,
    one_hot,
    soft,
)


@pytest.mark.parametrize(
    ("names", "terms"),
    [
        ([], 0),
        (["es"], 1),
        (["es", "es", "ru"], 2),
        (["ru", "es", "ru", "ru", "ja"], 4),
    ],
)
def test_runs_of_one_hot_tile_the_batch(bank, names, terms):
    gate = one_hot(names)
    rows = [row for term in gate for row in range(len(names))[term.rows]]
    assert rows == list(range(len(names)))
    assert len(gate) == terms
    layer = bank.layers["first"]
    for term in gate:
        for name in names[term.rows]:
            assert term.factors(layer)[0] is layer.factors(name)[0]


def test_soft_weighs_each_expert_by_its_column(bank):
    weight_BE = torch.tensor([[0.1, 0.9], [0.7, 0.3]])
    gate = soft(["ru", "es"], weight_BE)
    layer = bank.layers["first"]
    for term, name, weight_B in zip(gate, ["ru", "es"], weight_BE.T, strict=True):
        assert term.rows == EVERY_ROW
        assert torch.equal(term.weight_B, weight_B)
        assert term.factors(layer)[1] is layer.factors(name)[1]


def test_soft_needs_a_weight_for_each_expert():
    with pytest.raises(ValueError, match=r"3 columns.*got shape \(4, 2\)"):
        soft(["es", "ru", "ja"], torch.ones(4, 2))


def test_gates_for_all_rows_do_not_know_the_batch(bank):
    fusion = Fusion(["es", "ru"], ["first"])
    assert VANILLA == ()
    for gate in everywhere("es"), fused(fusion):
        assert [(term.rows, term.weight_B) for term in gate] == [(EVERY_ROW, None)]
