"""Cached, batched, folded or compacted: greedy decoding is a naive loop's result."""

from dataclasses import replace

import pytest
import torch

from espnet_lora_experts.whisper.decoding import DecodeOptions, Recognizer
from espnet_lora_experts.whisper.systems import (
    Encoded,
    Experts,
    Single,
    System,
    decode,
    encode,
)

LANGUAGES = ["es", "ru", "ja"]


@torch.no_grad()
def naive(backbone, system, prompter, encoded, lang, max_tokens):
    """One utterance, no cache: all tokens again for each new one."""
    ids, text, score = prompter.prompt(lang), [], 0.0
    encoded = Encoded(encoded.hidden_BPD, encoded.valid_BP, [lang])
    while len(text) < max_tokens:
        y_BUD = decode(backbone, system, encoded, torch.tensor([[*ids, *text]]))
        logits_K = backbone.logits(y_BUD[0, -1])
        logits_K[prompter.eot + 1 :] = float("-inf")
        best, token = logits_K.log_softmax(-1).max(-1)
        score += best.item()
        if token == prompter.eot:
            break
        text.append(int(token))
    return text, score


@torch.no_grad()
def test_greedy_is_a_naive_loop_for_each_utterance(
    trio, system, prompter, mel, langs, row_of
):
    encoded = encode(trio, system, *mel, langs)
    recognizer = Recognizer(trio, system, prompter, DecodeOptions(max_tokens=12))
    hypotheses = recognizer(encoded, langs)
    for row, (hypothesis, lang) in enumerate(zip(hypotheses, langs, strict=True)):
        tokens, score = naive(trio, system, prompter, row_of(encoded, row), lang, 12)
        assert hypothesis.tokens == tokens
        assert hypothesis.score == pytest.approx(score, abs=1e-4)
        assert (hypothesis.lang, hypothesis.posteriors) == (lang, {})


@torch.no_grad()
@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1, 0, 2], [2, 2, 1, 0]])
def test_batch_is_each_utterance_alone(trio, system, prompter, mel, langs, order):
    """Rows end at different steps and leave the batch; the others must not notice."""
    recognizer = Recognizer(trio, system, prompter)
    mel_BTM, frames_B = mel
    given = [langs[i] for i in order]
    batch = recognizer(
        encode(trio, system, mel_BTM[order], frames_B[order], given), given
    )
    for i, hypothesis in zip(order, batch, strict=True):
        alone = mel_BTM[i : i + 1, : frames_B[i]], frames_B[i : i + 1]
        (expected,) = recognizer(encode(trio, system, *alone, [langs[i]]), [langs[i]])
        assert hypothesis.tokens == expected.tokens
        assert prompter.decode(hypothesis.tokens) == prompter.decode(expected.tokens)
        assert hypothesis.score == pytest.approx(expected.score, abs=1e-4)


@torch.no_grad()
def test_utterances_end_at_different_steps(trio, prompter, mel, langs):
    """Guards the two tests above: without this they would prove little."""
    system = Experts(LANGUAGES)
    batch = Recognizer(trio, system, prompter)(encode(trio, system, *mel, langs), langs)
    lengths = [len(hypothesis.tokens) for hypothesis in batch]
    assert len(set(lengths)) >= 3
    assert min(lengths) < 12


@torch.no_grad()
@pytest.mark.parametrize(("asked", "most"), [(1, 1), (5, 5), (None, 16), (999, 28)])
def test_transcripts_have_a_longest_length(trio, prompter, mel, langs, asked, most):
    system = Experts(LANGUAGES)
    recognizer = Recognizer(trio, system, prompter, DecodeOptions(max_tokens=asked))
    recognizer.never_K[prompter.eot] = float("-inf")
    for hypothesis in recognizer(encode(trio, system, *mel, langs), langs):
        assert len(hypothesis.tokens) == most


@torch.no_grad()
@pytest.mark.parametrize(
    ("ratio", "frames", "most"),
    [
        (0.5, [2, 9, 20, 99], [1, 4, 10, 16]),
        (2.0, [1, 2, 3, 99], [2, 4, 6, 16]),
        (0.1, [1, 2, 3, 99], [1, 1, 1, 9]),
        (0.0, [1, 2, 3, 99], [16, 16, 16, 16]),
    ],
)
def test_a_loop_lasts_no_longer_than_the_clip_allows(
    trio, prompter, mel, langs, ratio, frames, most
):
    """Each row has its own limit, and only its own."""
    encoded = encode(trio, Experts(LANGUAGES), *mel, langs)
    recognizer = Recognizer(
        trio, Experts(LANGUAGES), prompter, DecodeOptions(maxlenratio=ratio)
    )
    free = Recognizer(trio, Experts(LANGUAGES), prompter)(encoded, langs)
    for row, expected, limit in zip(
        recognizer(encoded, langs, frames), free, most, strict=True
    ):
        assert row.tokens == expected.tokens[:limit]
        assert row.ended == (len(expected.tokens) < limit)
    recognizer.never_K[prompter.eot] = float("-inf")
    looping = recognizer(encoded, langs, frames)
    assert [len(row.tokens) for row in looping] == most
    assert not any(row.ended for row in looping)


@torch.no_grad()
def test_suppressed_tokens_never_come(trio, prompter, mel, langs):
    system = System(LANGUAGES)
    encoded = encode(trio, system, *mel)
    free = Recognizer(trio, system, prompter)(encoded, langs)
    seen = sorted({token for row in free for token in row.tokens})
    first = sorted({row.tokens[0] for row in free if row.tokens} - set(seen[:2]))
    trio.hf.generation_config.suppress_tokens = seen[:2]
    trio.hf.generation_config.begin_suppress_tokens = [*first, prompter.eot]
    assert Recognizer(trio, system, prompter)(encoded, langs) == free
    suppressed = DecodeOptions(suppress_tokens=True)
    for row in Recognizer(trio, system, prompter, suppressed)(encoded, langs):
        assert row.tokens
        assert row.tokens[0] not in first
        assert not set(seen[:2]) & set(row.tokens)
        assert max(row.tokens) < prompter.eot


@torch.no_grad()
def test_what_may_not_come_first_may_come_later(trio, prompter, mel, langs):
    system = System(LANGUAGES)
    encoded = encode(trio, system, *mel)
    free = Recognizer(trio, system, prompter)(encoded, langs)
    assert all(0 < len(row.tokens) < 16 for row in free)  # each has its end
    trio.hf.generation_config.begin_suppress_tokens = [prompter.eot]
    suppressed = Recognizer(trio, system, prompter, DecodeOptions(suppress_tokens=True))
    for row, expected in zip(suppressed(encoded, langs), free, strict=True):
        assert row.tokens == expected.tokens


@torch.no_grad()
@pytest.mark.parametrize("targets", [["es"], ["ja", "ru"], ["ko", "de", "es", "zh"]])
def test_found_language_is_one_of_the_targets(trio, prompter, mel, targets):
    system = Single(targets, "ru")
    encoded = encode(trio, system, *mel)
    found, posteriors = Recognizer(trio, system, prompter).find_languages(encoded)
    sot_BU = torch.full((4, 1), prompter.sot)
    logits_BK = trio.logits(decode(trio, system, encoded, sot_BU)[:, -1])
    ids = [prompter.language(code) for code in targets]
    expected_BL = logits_BK[:, ids].softmax(dim=-1)
    assert found == [targets[i] for i in expected_BL.argmax(dim=-1)]
    for row, expected_L in zip(posteriors, expected_BL, strict=True):
        assert list(row) == targets
        torch.testing.assert_close(torch.tensor([*row.values()]), expected_L)
    hypotheses = Recognizer(trio, system, prompter)(encoded)
    assert [(h.lang, h.posteriors) for h in hypotheses] == list(
        zip(found, posteriors, strict=True)
    )
    given = Recognizer(trio, system, prompter)(encoded, found)
    assert hypotheses == [
        replace(
            hypothesis,
            posteriors=row,
            score=pytest.approx(hypothesis.score, abs=1e-4),
        )
        for hypothesis, row in zip(given, posteriors, strict=True)
    ]


@torch.no_grad()
def test_mole_finds_the_language_that_it_routes_by(trio, make_mole, prompter, mel):
    mole = make_mole()
    encoded = encode(trio, mole, *mel)
    hypotheses = Recognizer(trio, mole, prompter)(encoded)
    assert [row.lang for row in hypotheses] == encoded.route
    posterior_BL = encoded.lid_logits_BN.softmax(dim=1)
    for row, expected_L in zip(hypotheses, posterior_BL, strict=True):
        values = torch.tensor([row.posteriors[code] for code in LANGUAGES])
        torch.testing.assert_close(values, expected_L)


@torch.no_grad()
def test_route_of_the_encoder_is_the_decoders_language(
    trio, system, prompter, mel, langs
):
    if isinstance(system, Experts):
        recognizer = Recognizer(trio, system, prompter)
        encoded = encode(trio, system, *mel, langs)
        told, read = recognizer(encoded, langs), recognizer(encoded)
        assert [row.lang for row in read] == langs
        assert [row.tokens for row in read] == [row.tokens for row in told]


@torch.no_grad()
def test_experts_without_language_are_an_error(trio, prompter, mel):
    encoded = encode(trio, System(LANGUAGES), *mel)
    with pytest.raises(ValueError, match="needs the language of every utterance"):
        Recognizer(trio, Experts(LANGUAGES), prompter)(encoded)
