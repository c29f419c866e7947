"""Soft routes: weighted sums of experts, row by row, in every layer and every step."""

import pytest
import torch

from espnet_lora_experts.whisper.decoding import DecodeOptions, Recognizer
from espnet_lora_experts.whisper.folder import describe
from espnet_lora_experts.whisper.route import gate_of, step_gate
from espnet_lora_experts.whisper.systems import Experts, decode, encode

LANGUAGES = ["es", "ru", "ja"]
SHARES = [{"ru": 0.6, "es": 0.4}, {"es": 1.0}, "ru", {"ja": 0.2, "es": 0.7, "ru": 0.1}]


@pytest.fixture
def soft(make_mole):
    """Builds a MoLE of soft routing, the same but for its top_k."""

    def make(top_k):
        mole = make_mole()
        mole.top_k = top_k
        return mole

    return make


@torch.no_grad()
@pytest.mark.parametrize("make_gate", [gate_of, lambda route: step_gate(route)(route)])
def test_a_row_gets_the_weighted_sum_of_its_experts(trio, make_gate):
    x_BTD = torch.randn(4, 3, 16)
    layer = trio.bank.layers["model.decoder.layers.0.fc1"]
    with trio.bank.using(make_gate(SHARES)):
        found_BTO = layer(x_BTD)
    for row, share in enumerate(SHARES):
        expected = torch.nn.functional.linear(x_BTD[row], layer.weight, layer.bias)
        for name, weight in ({share: 1} if isinstance(share, str) else share).items():
            A_RD, B_OR = layer.factors(name)
            expected = expected + weight * (x_BTD[row] @ A_RD.T @ B_OR.T)
        torch.testing.assert_close(found_BTO[row], expected)


@torch.no_grad()
def test_all_weight_on_one_language_is_the_hard_route(trio, make_mole, mel, langs):
    certain = [{"es": 0.0, "ru": 0.0, "ja": 0.0} | {lang: 1.0} for lang in langs]
    for system in (Experts(LANGUAGES), make_mole()):
        soft, hard = (encode(trio, system, *mel, route) for route in (certain, langs))
        torch.testing.assert_close(soft.hidden_BPD, hard.hidden_BPD)
        ids_BU = torch.arange(12).reshape(4, 3)
        scores = [decode(trio, system, route, ids_BU) for route in (soft, hard)]
        torch.testing.assert_close(*scores)


@torch.no_grad()
def test_top_1_is_the_hard_route_bit_for_bit(trio, soft, make_mole, prompter, mel):
    hard = encode(trio, make_mole(), *mel)
    top_1 = encode(trio, soft(1), *mel)
    assert top_1.route == hard.route and isinstance(top_1.route[0], str)
    assert torch.equal(top_1.hidden_BPD, hard.hidden_BPD)
    said = [Recognizer(trio, soft(1), prompter)(encoded) for encoded in (top_1, hard)]
    assert said[0] == said[1]


@torch.no_grad()
@pytest.mark.parametrize("top_k", [2, 3])
def test_weights_are_the_posteriors_of_the_most_probable(trio, soft, mel, top_k):
    encoded = encode(trio, soft(top_k), *mel)
    for share, logits_N in zip(encoded.route, encoded.lid_logits_BN, strict=True):
        posterior = dict(zip(LANGUAGES, logits_N.softmax(0).tolist(), strict=True))
        best = sorted(LANGUAGES, key=posterior.get, reverse=True)[:top_k]
        total = sum(posterior[lang] for lang in best)
        assert list(share) == best
        assert share == pytest.approx({x: posterior[x] / total for x in best})


@torch.no_grad()
@pytest.mark.parametrize("beam", [1, 3])
def test_soft_batch_is_each_utterance_alone(trio, soft, prompter, mel, beam):
    """Whose language is the most probable; it is not what the hard route says."""
    mole, options = soft(2), DecodeOptions(beam)
    recognizer = Recognizer(trio, mole, prompter, options)
    encoded = encode(trio, mole, *mel)
    batch = recognizer(encoded)
    for row, hypothesis in enumerate(batch):
        frames_B = mel[1][row : row + 1]
        alone = encode(trio, mole, mel[0][row : row + 1, : frames_B[0]], frames_B)
        [expected] = recognizer(alone)
        assert hypothesis.tokens == expected.tokens
        assert hypothesis.score == pytest.approx(expected.score, abs=1e-4)
        assert hypothesis.lang == max(
            hypothesis.posteriors, key=hypothesis.posteriors.get
        )
    hard = Recognizer(trio, soft(1), prompter, options)(encode(trio, soft(1), *mel))
    assert [x.lang for x in hard] == [x.lang for x in batch]
    assert all(a.score != b.score for a, b in zip(hard, batch, strict=True))


@torch.no_grad()
def test_greedy_under_a_soft_route_is_a_naive_loop(trio, soft, prompter, mel):
    """One utterance, no cache: all tokens again for each new one."""
    mole = soft(3)
    encoded = encode(trio, mole, mel[0][:1], mel[1][:1])
    options = DecodeOptions(max_tokens=12)
    [found] = Recognizer(trio, mole, prompter, options)(encoded)
    ids, text = prompter.prompt(found.lang), []
    while len(text) < 12:
        y_BUD = decode(trio, mole, encoded, torch.tensor([[*ids, *text]]))
        token = int(trio.logits(y_BUD[0, -1])[: prompter.eot + 1].argmax())
        if token == prompter.eot:
            break
        text.append(token)
    assert found.tokens == text


@torch.no_grad()
def test_a_given_language_is_a_hard_route(trio, soft, prompter, mel, langs):
    told = encode(trio, soft(2), *mel, langs)
    assert told.route == langs
    said = [Recognizer(trio, soft(k), prompter)(told, langs) for k in (1, 2)]
    assert said[0] == said[1]


@pytest.mark.parametrize("top_k", [0, 4])
def test_top_k_is_a_number_of_languages(soft, top_k):
    with pytest.raises(ValueError, match=rf"must be 1 to 3 \(languages\).*got {top_k}"):
        soft(top_k)


def test_a_folder_says_its_top_k(trio, soft):
    assert describe(trio, soft(2))["mole"]["top_k"] == 2
