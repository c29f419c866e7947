"""Fusion by its formulas, and training-free merges against PEFT's own."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model

from espnet_lora_experts.experts.bank import ExpertBank
from espnet_lora_experts.experts.fusion import (
    COMBINATION_TYPES,
    Fusion,
    merge,
    truncated_svd,
)
from espnet_lora_experts.experts.gate import fused

TARGETS = ["first", "second"]
EXPERTS = ["es", "ru", "ja"]


@pytest.fixture
def fusion_of():
    """A fusion with weights that differ by matrix and expert."""

    def make(combination, keys=TARGETS):
        fusion = Fusion(EXPERTS, keys, combination)
        torch.nn.init.normal_(fusion.V_IN, generator=torch.Generator().manual_seed(0))
        return fusion

    return make


def test_fusion_starts_even():
    alpha_IN = Fusion(EXPERTS, TARGETS).alpha_IN
    torch.testing.assert_close(alpha_IN, torch.full((2, 3), 1 / 3))


def formula(bank, fusion, key):
    """The papers' formulas, written out term by term."""
    alpha_N = fusion.V_IN[TARGETS.index(key)].softmax(dim=0)
    pairs = [bank.layers[key].factors(name) for name in EXPERTS]
    if fusion.combination == "delta":
        return sum(a * B @ A for a, (A, B) in zip(alpha_N, pairs, strict=True))
    return sum(
        alpha_N[j] * alpha_N[k] * pairs[j][1] @ pairs[k][0]  # cross terms B_j A_k
        for j in range(len(pairs))
        for k in range(len(pairs))
    )


@pytest.mark.parametrize("combination", ["factor", "delta"])
def test_fused_gate_is_the_formula(bank, x, merged, fusion_of, combination):
    fusion = fusion_of(combination)
    with bank.using(fused(fusion)):
        gated = bank.model(x)
    expected = merged(lambda key: formula(bank, fusion, key).detach())(x)
    torch.testing.assert_close(gated, expected)


@pytest.mark.parametrize("combination", ["factor", "delta"])
def test_gradient_reaches_the_weights_and_no_expert(bank, x, fusion_of, combination):
    fusion = fusion_of(combination)
    bank.train_only([])
    with bank.using(fused(fusion)):
        bank.model(x).square().sum().backward()
    assert (fusion.V_IN.grad.abs() > 0).all()
    assert all(p.grad is None for p in bank.model.parameters())


def test_delta_mixes_ranks_and_targets_and_factor_names_them(
    bank, add_random, fusion_of
):
    bank.drop("ru")
    add_random(bank, ["ru"], r=4, scale=1, target_modules=["second"])
    second = bank.layers["second"]
    fusion = fusion_of("delta")
    A_RD, B_OR = fusion.factors(second)
    assert A_RD.shape[0] == 2 + 4 + 2
    torch.testing.assert_close(B_OR @ A_RD, formula(bank, fusion, "second"))
    A_RD, B_OR = fusion.factors(bank.layers["first"])
    es, ja = (bank.layers["first"].factors(name) for name in ("es", "ja"))
    weight_es, _, weight_ja = fusion.alpha_IN[0]
    expected = weight_es * es[1] @ es[0] + weight_ja * ja[1] @ ja[0]
    torch.testing.assert_close(B_OR @ A_RD, expected)
    factor = Fusion(EXPERTS, TARGETS)
    for key, ranks in {"second": "'ru': 4", "first": "'ru': 0"}.items():
        with pytest.raises(ValueError, match=f"one rank at {key}.*{ranks}"):
            factor.factors(bank.layers[key])


def test_layer_without_experts_has_no_pair(bank, add_random, model):
    for name in EXPERTS:
        bank.drop(name)
    add_random(bank, EXPERTS, target_modules=["second"])
    assert Fusion(EXPERTS, TARGETS).factors(bank.layers["first"]) is None


def test_unknown_combinations_are_errors(bank):
    with pytest.raises(ValueError, match="combination must be one of .* got 'mean'"):
        Fusion(EXPERTS, TARGETS, "mean")
    pairs = [bank.layers["first"].factors("es")]
    with pytest.raises(ValueError, match="combination_type must be .* got 'slerp'"):
        merge(pairs, torch.ones(1), "slerp", r=2)


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5)])
@pytest.mark.parametrize("r", [1, 3, 4, 9])
def test_truncated_svd_is_the_best_of_its_rank(shape, r):
    torch.manual_seed(r)
    delta_OD = torch.randn(shape)
    A_RD, B_OR = truncated_svd(delta_OD, r)
    assert (A_RD.shape, B_OR.shape) == ((r, shape[1]), (shape[0], r))
    lost = torch.linalg.svdvals(delta_OD)[r:].square().sum()  # Eckart and Young
    torch.testing.assert_close((delta_OD - B_OR @ A_RD).square().sum(), lost)
    torch.testing.assert_close(A_RD.norm(dim=1), B_OR.norm(dim=0))


@pytest.mark.parametrize("combination_type", COMBINATION_TYPES)
@pytest.mark.parametrize("weights", [[0.5, 0.3, 0.2], [1.0, -0.5, 0.7]])
@pytest.mark.parametrize("lora_alpha", [4, 8])
def test_merge_is_pefts(
    model, base, combination_type, weights, lora_alpha, monkeypatch
):
    config = LoraConfig(
        r=4, lora_alpha=lora_alpha, target_modules=TARGETS, init_lora_weights=False
    )
    torch.manual_seed(0)
    plain = get_peft_model(base, copy.deepcopy(config), "es")
    for name in EXPERTS[1:]:
        plain.add_adapter(name, copy.deepcopy(config))
    bank = ExpertBank(model)
    for name in EXPERTS:
        bank.add(name, copy.deepcopy(config))
        for key, parameter in bank.parameters_of(name):
            path = f"base_model.model.{key}".replace(".weight", f".{name}.weight")
            parameter.data.copy_(plain.get_parameter(path))
    inject = plain.base_model.inject_adapter

    def inject_and_seed(*args):  # a new adapter's random start draws numbers as well
        inject(*args)
        torch.manual_seed(1)

    monkeypatch.setattr(plain.base_model, "inject_adapter", inject_and_seed)
    plain.add_weighted_adapter(
        EXPERTS, weights, "merged", combination_type, svd_rank=3, density=0.5
    )
    torch.manual_seed(1)
    for key, layer in bank.layers.items():
        pairs = [layer.factors(name) for name in EXPERTS]
        A_RD, B_OR = merge(
            pairs, torch.tensor(weights), combination_type, r=3, density=0.5
        )
        theirs = plain.base_model.model.get_submodule(key).get_delta_weight("merged")
        torch.testing.assert_close(B_OR @ A_RD, theirs)


def test_new_experts_divide_their_share_and_leave_the_ratios():
    fusion = Fusion(["a", "b", "c", "d"], ["encoder.layers.0.fc1"])
    with torch.no_grad():
        fusion.start_from(torch.tensor([[0.0, 3.0]]).log1p(), [2, 0], new_share=0.5)
    expected = torch.tensor([[0.4, 0.25, 0.1, 0.25]])
    torch.testing.assert_close(fusion.alpha_IN, expected)
