"""Experts in a recognizer: what is switched, mixed or folded says the same as before.

Names of dimensions: B batch, U text positions, K vocabulary.
"""

import pytest
import torch
from transformers import WhisperForConditionalGeneration

from espnet_lora_experts.experts.layer import ExpertLinear
from espnet_lora_experts.experts.store import save_expert
from espnet_lora_experts.inference import Speech2Text
from espnet_lora_experts.whisper.backbone import Backbone
from espnet_lora_experts.whisper.folder import save_system
from espnet_lora_experts.whisper.systems import decode, encode

ROUTE = ["ru", "es", "ru", "ja"]
IDS_BU = torch.arange(12).reshape(4, 3)


@pytest.fixture
def logits(mel):
    """Scores of all tokens, (B, U, K), under the gates in force."""

    @torch.no_grad()
    def logits_BUK(speech2text):
        backbone, system = speech2text.backbone, speech2text.system
        encoded = encode(backbone, system, *mel, ROUTE if system.routed else None)
        return backbone.logits(decode(backbone, system, encoded, IDS_BU))

    return logits_BUK


@pytest.fixture
def mono(load):
    return load("mono")


def test_lists_its_experts(mono):
    assert list(mono.experts) == ["es", "ru", "ja"]
    assert len(mono.experts) == 3 and "ru" in mono.experts and "fr" not in mono.experts
    assert "Experts of ['es', 'ru', 'ja']" in repr(mono.experts)
    mono.experts.mix({"es": 0.7, "ja": 0.3})
    assert "Mixture of {'es': 0.7, 'ja': 0.3}" in repr(mono.experts)


def test_use_is_the_expert_whatever_the_language(mono, clips):
    told = {lang: mono(clips[0], lang).score for lang in ("es", "ru")}
    mono.experts.use("ru")
    assert mono(clips[0], "ru").score == pytest.approx(told["ru"], abs=1e-4)
    assert mono(clips[0], "es").score != pytest.approx(told["es"], abs=1e-4)
    assert mono(clips[0]).posteriors.keys() == {"es", "ru", "ja"}


def test_mixture_of_one_is_the_expert(mono, logits):
    mono.experts.use("es")
    expected = logits(mono)
    mono.experts.mix({"es": 1})
    assert torch.equal(logits(mono), expected)
    mono.experts.mix({"es": 1, "ru": 0})
    torch.testing.assert_close(logits(mono), expected)


def test_mixture_is_the_weighted_sum_of_weight_changes(mono, logits):
    weights = {"es": 0.7, "ru": 0.5, "ja": -0.2}
    mono.experts.mix(weights)
    found = logits(mono)
    mono.experts.use("es")
    for layer in mono.backbone.bank.layers.values():
        delta_OD = 0
        for name, weight in weights.items():
            A_RD, B_OR = layer.factors(name)
            delta_OD = delta_OD + weight * B_OR @ A_RD
        layer.get_base_layer().weight.data += delta_OD
        layer.set_factors("es", *(torch.zeros_like(x) for x in layer.factors("es")))
    torch.testing.assert_close(found, logits(mono), atol=1e-4, rtol=1e-4)


def test_a_hundred_switches_leave_the_logits_as_they_were(mono, logits, clips):
    before, weights = logits(mono), dict(mono.backbone.hf.state_dict())
    weights = {key: value.clone() for key, value in weights.items()}
    for i in range(100):
        mono.experts.use(["es", "ru", "ja"][i % 3])
        if i % 10 == 0:
            mono.experts.mix({"es": 0.5, "ru": 0.1 * i})
            mono(clips[2], "es")
    mono.experts.use()
    assert torch.equal(logits(mono), before)
    after = mono.backbone.hf.state_dict()
    assert all(torch.equal(after[key], value) for key, value in weights.items())


@pytest.mark.parametrize("name", ["multi", "mixture", "vanilla"])
def test_folded_is_a_plain_whisper_that_says_the_same(load, logits, clips, name):
    speech2text = load("mono" if name == "mixture" else name)
    if name == "mixture":
        speech2text.experts.mix({"es": 0.7, "ru": 0.3})
    before = logits(speech2text)
    folded = speech2text.experts.fold()
    torch.testing.assert_close(logits(folded), before, atol=1e-4, rtol=1e-4)
    assert torch.equal(logits(speech2text), before)  # it stays as it is
    assert list(folded.experts) == []
    hf = folded.backbone.hf
    assert not any(isinstance(module, ExpertLinear) for module in hf.modules())
    theirs = {p.data_ptr() for p in speech2text.backbone.hf.parameters()}
    assert theirs.isdisjoint(p.data_ptr() for p in hf.parameters())
    assert folded.pad_to_30s == speech2text.pad_to_30s
    assert folded.options == speech2text.options
    texts = [result.tokens for result in speech2text(clips)]
    assert [result.tokens for result in folded(clips)] == texts


def test_folded_is_saved_and_loaded_by_transformers(load, logits, tmp_path):
    multi = load("multi")
    folded = multi.experts.fold()
    folded.backbone.hf.save_pretrained(tmp_path)
    loaded = WhisperForConditionalGeneration.from_pretrained(tmp_path)
    again = folded.with_system(folded.system, Backbone(loaded.eval()))
    assert again.backbone.sha256 == folded.backbone.sha256 != multi.backbone.sha256
    assert torch.equal(logits(again), logits(folded))
    assert loaded.proj_out.weight is loaded.model.decoder.embed_tokens.weight


@torch.no_grad()
def test_a_mixture_is_folded_to_be_saved(mono, logits, tmp_path):
    mono.experts.mix({"es": 0.7, "ru": 0.3})
    with pytest.raises(ValueError, match="but is a mixture; fold it"):
        save_system(tmp_path / "mix", mono.backbone, mono.system)
    assert not (tmp_path / "mix").exists()
    folded = mono.experts.fold()
    save_system(tmp_path / "mix", folded.backbone, folded.system)
    again = Speech2Text.from_pretrained(tmp_path / "mix")
    torch.testing.assert_close(logits(again), logits(mono), atol=1e-4, rtol=1e-4)
    assert again.system.languages == mono.system.languages


def test_folding_needs_one_gate_for_all(load):
    for name in ("mono", "mole"):
        with pytest.raises(ValueError, match=r"to be folded, but got .*; use\(\) one"):
            load(name).experts.fold()


def test_dropped_and_added_again_is_the_same(mono, folders, clips):
    """A language comes and goes with its expert."""
    expected = mono(clips, "ja")
    mono.experts.drop("ja")
    assert list(mono.experts) == ["es", "ru"]
    with pytest.raises(ValueError, match=r"system's \['es', 'ru'\], got \['ja'\]"):
        mono(clips, "ja")
    mono.experts.add("ja", folders["mono"] / "experts/ja")
    again = mono(clips, "ja")
    assert [r.tokens for r in again] == [r.tokens for r in expected]
    assert [r.score for r in again] == pytest.approx([r.score for r in expected])


def test_an_idle_expert_changes_nothing(load, logits, folders, clips):
    multi = load("multi")
    before, found = logits(multi), multi(clips[0])
    multi.experts.add("ko", folders["mono"] / "experts/ja")
    assert torch.equal(logits(multi), before) and multi(clips[0]) == found
    with pytest.raises(ValueError, match=r"got \['ko'\]"):
        multi(clips[0], "ko")
    multi.experts.use("ko")
    assert multi(clips[0], "ko").lang == "ko"
    multi.experts.use("multi")
    multi.experts.drop("ko")
    assert torch.equal(logits(multi), before)


def test_two_experts_of_one_name_are_an_error(mono, folders, logits):
    before = logits(mono)
    with pytest.raises(ValueError, match="expert must be new, but got 'es'; has"):
        mono.experts.add("es", folders["mono"] / "experts/ja")
    assert torch.equal(logits(mono), before) and len(mono.experts) == 3


def test_an_expert_of_another_whisper_is_an_error(mono, make_whisper, tmp_path):
    from espnet_lora_experts.experts.bank import lora_config

    other = Backbone(make_whisper(d_model=32))
    other.bank.add("fr", lora_config(2))
    save_expert(other.bank, "fr", tmp_path / "fr")
    wrong = "fr must be an expert of a backbone of this size"
    with pytest.raises(ValueError, match=wrong):
        mono.experts.add("fr", tmp_path / "fr")
    with pytest.raises(FileNotFoundError, match="must be a PEFT adapter folder"):
        mono.experts.add("fr", tmp_path)
    assert list(mono.experts) == ["es", "ru", "ja"]
    assert mono.system.languages == ["es", "ru", "ja"]


def test_what_is_in_use_is_not_dropped(load, mono):
    with pytest.raises(ValueError, match="'multi' is, in Single of .*use"):
        load("multi").experts.drop("multi")
    with pytest.raises(ValueError, match="'ru' is, in MoLE of"):
        load("mole").experts.drop("ru")
    mono.experts.mix({"es": 0.5, "ru": 0.5})
    with pytest.raises(ValueError, match="'ru' is, in Mixture of"):
        mono.experts.drop("ru")
    mono.experts.use("es")
    mono.experts.drop("ru")
    with pytest.raises(ValueError, match=r"must be of \['es', 'ja'\].*\['ru'\]"):
        mono.experts.drop("ru")


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({}, "a finite number for each expert, but got {}"),
        ({"es": float("nan")}, "a finite number for each expert"),
        ({"es": 1, "xx": 1}, r"experts must be of .* but got \['xx'\]"),
    ],
)
def test_impossible_mixtures_are_errors(mono, weights, message):
    system = mono.system
    with pytest.raises(ValueError, match=message):
        mono.experts.mix(weights)
    assert mono.system is system


def test_recognizers_of_one_whisper_keep_their_gates(folders, whisper, logits):
    multi = Speech2Text.from_pretrained(folders["multi"], whisper)
    mono = Speech2Text.from_pretrained(folders["mono"], whisper)
    before = logits(multi)
    mono.experts.use("ru")
    mono.experts.drop("es")
    assert "es" not in multi.experts and torch.equal(logits(multi), before)
