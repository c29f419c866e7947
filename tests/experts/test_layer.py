"""A gated layer is PEFT's LoRA where PEFT can, and one merged weight where it is."""

import copy
import itertools

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model

from espnet_lora_experts.experts.bank import ExpertBank, lora_config
from espnet_lora_experts.experts.gate import VANILLA, everywhere, one_hot, soft
from espnet_lora_experts.experts.layer import adapter_name

TARGETS = ["first", "second"]
SORTED, MIXED = ["es", "es", "ja", "ru"], ["ru", "es", "ja", "es"]


@pytest.mark.parametrize("gate", [VANILLA, one_hot(["es"] * 4), everywhere("es")])
def test_fresh_expert_is_the_base_bit_for_bit(model, base, x, gate, one_library):
    bank = ExpertBank(model)
    bank.add("es", lora_config(2, target_modules=TARGETS))
    with bank.using(gate):
        assert torch.equal(model(x), base(x))


def test_vanilla_gate_is_the_base_bit_for_bit(bank, base, x, one_library):
    with bank.using(VANILLA):
        assert torch.equal(bank.model(x), base(x))


@pytest.mark.parametrize(
    "scale",
    [{}, {"lora_alpha": 8}, {"lora_alpha": 8, "use_rslora": True}],
    ids=["one", "alpha", "rslora"],
)
def test_one_hot_gate_is_pefts_lora(model, base, x, scale):
    torch.manual_seed(3)
    scale = {"lora_alpha": 4} | scale
    config = LoraConfig(r=4, target_modules=TARGETS, init_lora_weights=False, **scale)
    plain = inject_adapter_in_model(copy.deepcopy(config), base, "default")
    bank = ExpertBank(model)
    bank.add("es", config)
    theirs = {k.replace(".default", ""): p for k, p in plain.named_parameters()}
    for key, parameter in bank.parameters_of("es"):
        parameter.data.copy_(theirs[key])
    with bank.using(one_hot(["es"] * 4)):
        torch.testing.assert_close(bank.model(x), plain(x))
    assert torch.equal(bank.model(x), plain(x))  # without a gate, it is PEFT's own


@pytest.mark.parametrize("names", [SORTED, MIXED])
@pytest.mark.parametrize("shape", [(4, 6), (4, 3, 6)])
def test_mixed_batch_is_each_row_alone(bank, x, names, shape):
    x = x if len(shape) == 3 else x[:, 0]
    with bank.using(one_hot(names)):
        mixed = bank.model(x)
    for i, name in enumerate(names):
        with bank.using(one_hot([name])):
            torch.testing.assert_close(mixed[i : i + 1], bank.model(x[i : i + 1]))


@pytest.mark.parametrize("names", [SORTED, MIXED])
def test_gradients_of_a_mixed_batch_are_the_sum_of_its_rows(bank, x, names):
    bank.train_only(bank.names)
    with bank.using(one_hot(names)):
        bank.model(x).square().sum().backward()
    together = gradients(bank)
    for i, name in enumerate(names):
        with bank.using(one_hot([name])):
            bank.model(x[i : i + 1]).square().sum().backward()
    alone = gradients(bank)
    assert together.keys() == alone.keys() != set()
    for key, gradient in together.items():
        torch.testing.assert_close(gradient, alone[key])


def gradients(bank):
    """All gradients that there are, taken away from the model."""
    found = {}
    for key, parameter in bank.model.named_parameters():
        if parameter.grad is not None:
            found[key], parameter.grad = parameter.grad, None
    return found


def test_idle_expert_has_no_gradient(bank, x):
    bank.train_only(bank.names)
    with bank.using(one_hot(["es", "es", "ja", "ja"])):
        bank.model(x).sum().backward()
    assert all(p.grad is None for _, p in bank.parameters_of("ru"))
    assert all(p.grad is not None for _, p in bank.parameters_of("es"))


def test_gate_for_all_is_the_merged_weight(bank, x, merged, product):
    with bank.using(everywhere("ru")):
        gated = bank.model(x)
    expected = merged(lambda key: product("ru", key))(x)
    torch.testing.assert_close(gated, expected)


def test_constant_soft_gate_is_the_merged_weight(bank, x, merged, product):
    with bank.using(soft(["es", "ja"], torch.tensor([[0.3, 0.7]]).expand(4, 2))):
        gated = bank.model(x)
    expected = merged(lambda k: 0.3 * product("es", k) + 0.7 * product("ja", k))(x)
    torch.testing.assert_close(gated, expected)


def test_soft_gate_with_a_one_is_one_hot(bank, x):
    weight_BE = torch.eye(3)[[1, 0, 2, 0]]
    with bank.using(soft(["es", "ru", "ja"], weight_BE)):
        weighted = bank.model(x)
    with bank.using(one_hot(MIXED)):
        torch.testing.assert_close(weighted, bank.model(x))


def test_terms_add_up_whatever_their_order(bank, x):
    gates = one_hot(MIXED), everywhere("ja"), soft(["ru"], torch.rand(4, 1))
    with bank.using(VANILLA):
        vanilla = bank.model.first(x)
    parts = []
    for gate in gates:
        with bank.using(gate):
            parts.append(bank.model.first(x) - vanilla)
    for order in itertools.permutations(gates):
        with bank.using(sum(order, ())):
            got = bank.model.first(x)
        torch.testing.assert_close(got, vanilla + sum(parts))


def test_expert_is_absent_where_it_has_no_target(
    model, base, x, add_random, one_library
):
    bank = ExpertBank(model)
    add_random(bank, ["es"], scale=1, target_modules=TARGETS)
    add_random(bank, ["ru"], scale=1, target_modules=["second"])
    assert bank.layers["first"].factors("ru") is None
    with bank.using(one_hot(["es", "ru", "es", "ru"])):
        first = bank.model.first(x)
        assert not torch.equal(bank.model.second(first), base.second(first))
    assert torch.equal(first[1::2], base.first(x)[1::2])
    assert not torch.equal(first[::2], base.first(x)[::2])


def test_set_factors_undoes_factors_at_any_scale(model):
    bank = ExpertBank(model)
    bank.add("es", lora_config(2, 6, TARGETS))
    layer = bank.layers["first"]
    pair = torch.randn(2, 6), torch.randn(5, 2)
    layer.set_factors("es", *pair)
    torch.testing.assert_close(layer.factors("es"), pair)
    raw = layer.lora_B[adapter_name("es")].weight
    torch.testing.assert_close(raw * 3, pair[1])


def test_delta_is_the_sum_over_terms(bank, product):
    layer = bank.layers["first"]
    delta = layer.delta_OD((*everywhere("es"), *everywhere("ru")))
    torch.testing.assert_close(delta, product("es", "first") + product("ru", "first"))
    assert layer.delta_OD(VANILLA) is None


@pytest.mark.parametrize(
    "gate", [one_hot(["es", "ru"]), soft(["es"], torch.ones(1, 1))]
)
def test_delta_for_some_rows_does_not_exist(bank, gate):
    with pytest.raises(ValueError, match="must treat all rows alike"):
        bank.layers["first"].delta_OD(gate)
