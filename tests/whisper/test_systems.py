"""Systems are their gates: mixed batches, merged layers, routes, counts, folding."""

import pytest
import torch
import torch.nn.functional as F
from transformers import WhisperConfig, WhisperForConditionalGeneration

from espnet_lora_experts.experts.bank import count_parameters, lora_config
from espnet_lora_experts.experts.distill import sequence_mean
from espnet_lora_experts.experts.gate import VANILLA, everywhere, fused, one_hot, soft
from espnet_lora_experts.whisper.backbone import Backbone
from espnet_lora_experts.whisper.systems import (
    Experts,
    Mixture,
    MoLE,
    Single,
    System,
    decode,
    encode,
)

LANGUAGES = ["es", "ru", "ja"]
LENGTHS = [6, 4, 7, 5]


@pytest.fixture
def ids():
    """Tokens of four utterances, (B, U), and which of them count."""
    generator = torch.Generator().manual_seed(3)
    ids_BU = torch.randint(0, 256, (4, 7), generator=generator)
    return ids_BU, torch.arange(7) < torch.tensor(LENGTHS)[:, None]


@pytest.fixture
def make(make_mole):
    """Builds a system of the trio by name."""

    def build(name, *args):
        if name == "mole":
            return make_mole(*args)
        systems = {"vanilla": System(LANGUAGES), "experts": Experts(LANGUAGES)}
        systems["mixture"] = Mixture(LANGUAGES, {"es": 0.7, "ja": -0.4})
        return systems.get(name) or Single(LANGUAGES, "ru")

    return build


def loss_B(backbone, system, mel, ids, langs, rows):
    """Recognition loss of each of some rows, their language given."""
    mel_BTM, frames_B = mel[0][rows, : mel[1][rows].max()], mel[1][rows]
    encoded = encode(backbone, system, mel_BTM, frames_B, [langs[i] for i in rows])
    ids_BU, counted_BU = ids[0][rows], ids[1][rows][:, 1:]
    logits_BUK = backbone.logits(decode(backbone, system, encoded, ids_BU[:, :-1]))
    value_BU = F.cross_entropy(logits_BUK.mT, ids_BU[:, 1:], reduction="none")
    return sequence_mean(value_BU, counted_BU)


def gradients(*modules):
    found = {}
    for module in modules:
        for key, parameter in module.named_parameters():
            if parameter.grad is not None:
                found[key], parameter.grad = parameter.grad, None
    return found


@pytest.mark.parametrize("name", ["experts", "single", "mole"])
@pytest.mark.parametrize("order", [[0, 1, 2, 3], [1, 3, 0, 2]], ids=["mixed", "sorted"])
def test_mixed_batch_is_each_utterance_alone(trio, make, mel, ids, langs, name, order):
    system = make(name)
    trio.bank.train_only(trio.bank.names)
    together_B = loss_B(trio, system, mel, ids, langs, order)
    together_B.mean().backward()
    gradient = gradients(trio, system)
    alone = [loss_B(trio, system, mel, ids, langs, [row]) for row in order]
    torch.testing.assert_close(together_B, torch.cat(alone))
    torch.cat(alone).mean().backward()
    expected = gradients(trio, system)
    assert gradient.keys() == expected.keys()
    assert len(gradient) > 10
    for key, value in gradient.items():
        torch.testing.assert_close(
            value, expected[key], msg=lambda m, k=key: f"{k} {m}"
        )


def test_language_of_no_utterance_has_no_gradient(trio, make, mel, ids):
    trio.bank.train_only(LANGUAGES)
    langs = ["es", "ja", "es", "ja"]
    loss_B(trio, make("experts"), mel, ids, langs, [0, 1, 2, 3]).mean().backward()
    assert all(p.grad is None for _, p in trio.bank.parameters_of("ru"))
    for name in ("es", "ja"):
        assert all(p.grad is not None for _, p in trio.bank.parameters_of(name))


@torch.no_grad()
def test_vanilla_is_transformers_with_any_experts_beside(trio, make, make_whisper):
    mel_BTM, ids_BU = torch.randn(2, 200, 80), torch.tensor([[257, 260], [257, 3]])
    encoded = encode(trio, make("vanilla"), mel_BTM, torch.tensor([200, 200]))
    logits = trio.logits(decode(trio, make("vanilla"), encoded, ids_BU))
    expected = make_whisper()(
        input_features=mel_BTM.transpose(1, 2), decoder_input_ids=ids_BU
    )
    torch.testing.assert_close(logits, expected.logits)
    assert encoded.route is encoded.lid_logits_BN is None


@torch.no_grad()
def test_single_is_one_expert_whatever_the_language(trio, make, mel, langs):
    single = encode(trio, make("single"), *mel, langs)
    expected = encode(trio, make("experts"), *mel, ["ru"] * 4)
    torch.testing.assert_close(single.hidden_BPD, expected.hidden_BPD)


def test_experts_must_be_told_the_language(trio, make, mel):
    with pytest.raises(ValueError, match="must be told the language, but got None"):
        encode(trio, make("experts"), *mel)


@torch.no_grad()
@pytest.mark.parametrize("merged_layers", [1, 2])
def test_mole_without_language_routes_by_its_router(trio, make, mel, merged_layers):
    mole = make("mole", merged_layers)
    x_BPD, valid_BP = trio.embed(*mel)
    for i in range(merged_layers):
        x_BPD = trio.encode_layer(i, x_BPD, valid_BP, fused(mole.fusion))
    logits_BN = mole.router(x_BPD, valid_BP)
    found = encode(trio, mole, *mel)
    torch.testing.assert_close(found.lid_logits_BN, logits_BN)
    assert found.route == [LANGUAGES[n] for n in logits_BN.argmax(dim=1)]
    assert len(set(found.route)) > 1
    given = encode(trio, mole, *mel, found.route)
    assert torch.equal(found.hidden_BPD, given.hidden_BPD)


@torch.no_grad()
def test_mole_with_language_uses_it_above_the_merged_layers(trio, make, mel, langs):
    mole = make("mole")
    encoded = encode(trio, mole, *mel, langs)
    assert encoded.route == langs
    x_BPD, valid_BP = trio.embed(*mel)
    x_BPD = trio.encode_layer(0, x_BPD, valid_BP, fused(mole.fusion))
    torch.testing.assert_close(encoded.lid_logits_BN, mole.router(x_BPD, valid_BP))
    x_BPD = trio.encode_layer(1, x_BPD, valid_BP, one_hot(langs))
    torch.testing.assert_close(encoded.hidden_BPD, trio.encoder_norm(x_BPD))
    y_BUD = decode(trio, mole, encoded, torch.full((4, 2), 5))
    expected = decode(trio, make("experts"), encoded, torch.full((4, 2), 5))
    assert torch.equal(y_BUD, expected)


def test_mole_trains_its_weights_and_its_router_only(trio, make, mel, ids, langs):
    mole = make("mole")
    assert {key.split(".")[0] for key, _ in mole.named_parameters()} == {
        "fusion",
        "router",
    }
    assert len(mole.fusion.index) == 6
    asr_B = loss_B(trio, mole, mel, ids, langs, [0, 1, 2, 3])
    lid_BN = encode(trio, mole, *mel, langs).lid_logits_BN
    (asr_B.mean() + lid_BN.square().mean()).backward()
    assert all(p.grad.abs().sum() > 0 for p in mole.parameters())
    assert all(p.grad is None for p in trio.parameters())


@pytest.mark.parametrize("merged_layers", [0, 3])
def test_mole_needs_a_possible_depth(trio, merged_layers):
    with pytest.raises(ValueError, match=f"must be 1 to 2 .* got {merged_layers}"):
        MoLE(trio, LANGUAGES, merged_layers)


def test_mole_needs_an_expert_of_each_language(trio):
    with pytest.raises(ValueError, match=r"but got \['fr'\]"):
        MoLE(trio, [*LANGUAGES, "fr"], 1)


@torch.no_grad()
def test_mixture_is_the_soft_gate_of_its_weights(trio, make, mel):
    """Which sums up outputs instead of weights."""
    weight_BE = torch.tensor([[0.7, -0.4]]).repeat(4, 1)
    x_BPD, valid_BP = trio.embed(*mel)
    found = trio.encode_layer(0, x_BPD, valid_BP, make("mixture").encoder_gate(0, None))
    gate = soft(["es", "ja"], weight_BE)
    torch.testing.assert_close(found, trio.encode_layer(0, x_BPD, valid_BP, gate))


@pytest.mark.parametrize(
    ("name", "experts"),
    [("vanilla", []), ("single", ["ru"]), ("mixture", ["es", "ja"])]
    + [("experts", LANGUAGES), ("mole", LANGUAGES)],
)
def test_a_system_names_its_experts(trio, make, name, experts):
    assert make(name).experts == experts


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "lang"),
    [("vanilla", None), ("single", None), ("mole", None), ("mixture", None)]
    + [("vanilla", "ja"), ("single", "ja"), ("mole", "ja"), ("experts", "ja")],
)
def test_folded_system_is_the_gated_one(trio, make, mel, name, lang):
    system = make(name)
    route = lang and [lang] * 4
    ids_BU = torch.arange(12).reshape(4, 3)
    gated = encode(trio, system, *mel, route)
    expected = decode(trio, system, gated, ids_BU)
    bits = {key: p.clone() for key, p in trio.named_parameters()}
    with trio.bank.folded(lambda key: system.folding(key, None)):
        with trio.bank.folded(lambda key: system.folding(key, lang)):
            folded = encode(trio, system, *mel, route)
            torch.testing.assert_close(folded.hidden_BPD, gated.hidden_BPD)
            torch.testing.assert_close(decode(trio, system, folded, ids_BU), expected)
        again = encode(trio, system, *mel, route)
        torch.testing.assert_close(again.hidden_BPD, gated.hidden_BPD)
    assert folded.route == gated.route
    assert all(torch.equal(p, bits[key]) for key, p in trio.named_parameters())


@pytest.mark.parametrize(
    ("name", "lang", "folded"),
    [
        ("vanilla", "ja", 0),
        ("single", None, 32),
        ("mixture", None, 32),
        ("experts", None, 0),
        ("experts", "ja", 32),
        ("mole", None, 6),
        ("mole", "ja", 32),
    ],
)
def test_all_that_can_fold_folds(trio, make, name, lang, folded):
    system = make(name)
    gates = [system.folding(key, lang) for key in trio.bank.layers]
    assert len(gates) == 32
    assert sum(gate != VANILLA for gate in gates) == folded


@pytest.fixture
def medium(request):
    """Whisper-medium's shape, without memory behind it."""
    config = WhisperConfig(
        d_model=1024,
        encoder_layers=24,
        decoder_layers=getattr(request, "param", 24),
        encoder_attention_heads=16,
        decoder_attention_heads=16,
        encoder_ffn_dim=4096,
        decoder_ffn_dim=4096,
    )
    with torch.device("meta"):
        yield Backbone(WhisperForConditionalGeneration(config), sha256="none")


MEBI = 2**20


@pytest.mark.parametrize(("r", "count"), [(64, 66.0), (256, 264.0)])
def test_papers_count_of_a_lora(medium, r, count):
    medium.bank.add("es", lora_config(r))
    medium.bank.train_only(["es"])
    assert round(count_parameters(medium)[0] / MEBI, 1) == count


def test_papers_count_of_full_fine_tuning(medium):
    fixed = medium.hf.model.encoder.embed_positions.weight
    count = sum(p.numel() for p in medium.hf.parameters() if p is not fixed)
    assert round(count / MEBI, 1) == 727.0


@pytest.mark.parametrize("medium", [1], indirect=True)  # all of it is in the encoder
def test_papers_count_of_a_mole(medium):
    languages = [f"l{n}" for n in range(8)]
    medium.bank.add(languages[0], lora_config(64))
    for name in languages[1:]:  # which matrices have experts is known from the first
        medium.bank.add(name, lora_config(1, target_modules=r".*encoder.layers.0.fc1"))
    mole = MoLE(medium, languages, merged_layers=20)
    assert round(count_parameters(mole)[0] / MEBI, 2) == 1.01
    assert mole.fusion.V_IN.shape == (20 * 6, 8)


def test_gates_are_the_table_of_the_design(trio, make):
    route = ["es", "ru"]
    x = torch.randn(2, 3, 16)
    layer = trio.bank.layers["model.encoder.layers.1.fc1"]
    gates = {
        "vanilla": VANILLA,
        "single": everywhere("ru"),
        "experts": one_hot(route),
        "mole": one_hot(route),
    }
    for name, expected in gates.items():
        for gate in (make(name).encoder_gate(1, route), make(name).decoder_gate(route)):
            with trio.bank.using(expected):
                y = layer(x)
            with trio.bank.using(gate):
                assert torch.equal(layer(x), y)
