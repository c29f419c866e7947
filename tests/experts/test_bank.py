"""What is in a bank, what of it trains, and that folding leaves no trace."""

import logging

import pytest
import torch

from espnet_lora_experts.experts.bank import ExpertBank, count_parameters, lora_config
from espnet_lora_experts.experts.gate import VANILLA, everywhere, one_hot

TARGETS = ["first", "second"]


def trainable(model):
    return {name for name, p in model.named_parameters() if p.requires_grad}


def weights(bank):
    return {k: layer.base_layer.weight for k, layer in bank.layers.items()}


def test_default_scale_is_the_papers():
    assert lora_config(64).lora_alpha == 64
    assert lora_config(64, 128).lora_alpha == 128


@pytest.mark.parametrize("names", [[], ["ru"], ["es", "ja"]])
def test_exactly_the_named_experts_train(bank, names):
    bank.train_only(["es"])
    bank.train_only(names)
    expected = {
        f"{layer}.lora_{matrix}.expert_{name}.weight"
        for layer in TARGETS
        for matrix in "AB"
        for name in names
    }
    assert trainable(bank.model) == expected
    assert count_parameters(bank.model)[0] == len(names) * 2 * (6 + 5 + 5 + 4)


def test_frozen_from_the_start_and_after_each_new_expert(model, bank):
    assert trainable(ExpertBank(torch.nn.Linear(2, 2)).model) == set()
    bank.train_only(["es"])
    bank.add("multi", lora_config(2, target_modules=TARGETS))
    assert trainable(model) == set()


def test_count_is_logged(bank, caplog):
    bank.train_only(["es"])
    with caplog.at_level(logging.INFO):
        trained, total = count_parameters(bank.model)
    assert total == 6 * 5 + 5 + 5 * 4 + 4 + 3 * trained
    assert f"{trained:,} of {total:,}" in caplog.text


def test_parameters_are_named_by_layer_a_before_b(bank):
    assert [key for key, _ in bank.parameters_of("es")] == [
        f"{layer}.lora_{matrix}.weight" for layer in TARGETS for matrix in "AB"
    ]


def test_equal_seeds_start_from_equal_factors(model):
    bank = ExpertBank(model)
    state = torch.get_rng_state()
    for name, seed in {"es": 5, "ru": 5, "ja": 6}.items():
        bank.add(name, lora_config(2, target_modules=TARGETS), seed)
    assert torch.equal(torch.get_rng_state(), state)
    A = {name: bank.layers["first"].factors(name)[0] for name in bank.names}
    assert torch.equal(A["es"], A["ru"])
    assert not torch.equal(A["es"], A["ja"])


@pytest.mark.parametrize(
    ("name", "targets", "message"),
    [
        ("es", TARGETS, r"must be new, but got 'es'; has: \['es', 'ru', 'ja'\]"),
        ("a.b", TARGETS, "must be letters, digits, '-' and '_', got 'a.b'"),
        ("", TARGETS, "must be letters"),
        ("new", ["third"], "expert 'new' cannot be added: .*third"),
    ],
)
def test_expert_that_cannot_be_added_leaves_the_bank(bank, x, name, targets, message):
    before, bits = bank.model(x), bank.names
    with pytest.raises(ValueError, match=message):
        bank.add(name, lora_config(2, target_modules=targets))
    assert bank.names == bits
    assert torch.equal(bank.model(x), before)
    bank.add("new", lora_config(2, target_modules=TARGETS))
    assert len(dict(bank.parameters_of("new"))) == 4


def test_names_that_modules_have_are_good_names(bank):
    for name in ("to", "type", "zh-TW", "default"):
        bank.add(name, lora_config(2, target_modules=TARGETS))
        assert len(dict(bank.parameters_of(name))) == 4


def test_dropped_expert_is_gone_and_its_name_free(bank, base, x, one_library):
    bank.drop("es")
    assert bank.names == ["ru", "ja"]
    assert not [key for key, _ in bank.model.named_parameters() if "expert_es" in key]
    with pytest.raises(ValueError, match=r"of \['ru', 'ja'\], but got \['es'\]"):
        bank.drop("es")
    bank.add("es", lora_config(3, target_modules=["first"]))
    assert bank.layers["first"].factors("es")[0].shape == (3, 6)
    assert bank.layers["second"].factors("es") is None
    with bank.using(everywhere("es")):
        assert torch.equal(bank.model(x), base(x))


@pytest.mark.parametrize("trained", [[], ["ja"], ["es", "ja"]])
@pytest.mark.parametrize("dropped", ["es", "ru", "ja"])
def test_dropping_leaves_frozen_what_is_frozen(bank, trained, dropped):
    bank.train_only(trained)
    before = trainable(bank.model)
    bank.drop(dropped)
    assert trainable(bank.model) == {key for key in before if dropped not in key}


def test_unknown_expert_is_named(bank):
    with pytest.raises(ValueError, match=r"but got \['fr'\]"):
        bank.train_only(["fr"])
    with pytest.raises(ValueError, match=r"but got \['de', 'fr'\]"):
        bank.require(["es", "fr", "de"])


def test_gates_nest_and_end_with_their_block(bank, x):
    outside = bank.model(x)
    with bank.using(everywhere("es")):
        es = bank.model(x)
        with pytest.raises(RuntimeError, match="inside"), bank.using(VANILLA):
            raise RuntimeError("inside")
        assert torch.equal(bank.model(x), es)
    assert torch.equal(bank.model(x), outside)
    assert not torch.equal(es, outside)


def test_folded_gives_the_gates_outputs_and_the_same_bits_after(bank, x):
    before = {k: (w, w.data.clone()) for k, w in weights(bank).items()}
    with bank.using(everywhere("ru")):
        gated = bank.model(x)
    with bank.folded(lambda key: everywhere("ru")), bank.using(one_hot(["ru"] * 4)):
        torch.testing.assert_close(bank.model(x), gated)
        folded = {k: w.data for k, w in weights(bank).items()}
        assert not any(torch.equal(folded[k], before[k][1]) for k in before)
    for key, weight in weights(bank).items():
        assert weight is before[key][0]
        assert torch.equal(weight, before[key][1])
    with bank.using(everywhere("ru")):
        assert torch.equal(bank.model(x), gated)


def test_exception_inside_folded_restores_the_bits(bank, x):
    before = {k: w.data.clone() for k, w in weights(bank).items()}
    with pytest.raises(RuntimeError, match="inside"):
        with bank.folded(lambda key: everywhere("ru")):
            raise RuntimeError("inside")
    assert all(torch.equal(w, before[k]) for k, w in weights(bank).items())
    assert bank.switch.folded == set()


@pytest.mark.parametrize("bad", TARGETS)
def test_gate_over_some_rows_cannot_be_folded(bank, bad):
    before = {k: w.data.clone() for k, w in weights(bank).items()}
    gates = {key: everywhere("ru") for key in TARGETS} | {bad: one_hot(["es", "ru"])}
    with pytest.raises(ValueError, match="must treat all rows alike"):
        with bank.folded(gates.__getitem__):
            pass
    assert all(torch.equal(w, before[k]) for k, w in weights(bank).items())
    assert bank.switch.folded == set()


def test_inner_fold_leaves_the_outer_one_alone(bank, x):
    gates = {"first": everywhere("es"), "second": everywhere("ru")}
    with bank.using(gates["first"]):
        first = bank.model.first(x).tanh()
    with bank.using(gates["second"]):
        expected = bank.model.second(first)
    before = {k: w.data.clone() for k, w in weights(bank).items()}
    with bank.folded(lambda key: gates["first"] if key == "first" else VANILLA):
        outer = {k: w.data.clone() for k, w in weights(bank).items()}
        with bank.folded(lambda key: gates[key]), bank.using(VANILLA):
            torch.testing.assert_close(bank.model(x), expected)
        assert all(torch.equal(w, outer[k]) for k, w in weights(bank).items())
        assert bank.switch.folded == {"first"}
    assert all(torch.equal(w, before[k]) for k, w in weights(bank).items())


def test_folded_weights_are_cast_anew(add_random):
    """Under autocast, one expert after the other: wide, so that memory is reused."""
    model = torch.nn.Linear(512, 512)
    bank = ExpertBank(torch.nn.Sequential(model))
    add_random(bank, ["es", "ru", "ja"], scale=1, target_modules=["0"])
    x = torch.randn(2, 512, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for name in ["es", "ru", "ja", "es", "ja", "ru"]:
            with bank.using(everywhere(name)):
                expected = bank.model(x).float()
                with bank.folded(lambda key, name=name: everywhere(name)):
                    got = bank.model(x).float()
            assert (got - expected).norm() < 0.02 * expected.norm()
