"""Beam search: a plain one for each utterance, without cache or batch, agrees."""

import pytest
import torch
from transformers import NoRepeatNGramLogitsProcessor

from espnet_lora_experts.whisper import search
from espnet_lora_experts.whisper.decoding import DecodeOptions, Recognizer
from espnet_lora_experts.whisper.search import Path, Utterance, _candidates
from espnet_lora_experts.whisper.stepper import Stepper
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
def plain(
    backbone, system, prompter, encoded, lang, beam, limit, length_penalty, size=0
):
    """All continuations of all hypotheses, sorted; all tokens again for each."""
    encoded = Encoded(encoded.hidden_BPD, encoded.valid_BP, [lang])
    prompt, alive, ended = prompter.prompt(lang), [([], 0.0)], []
    while len(alive[0][0]) < limit and len(ended) < beam:
        every = []
        for tokens, score in alive:
            y_BUD = decode(backbone, system, encoded, torch.tensor([prompt + tokens]))
            logits_K = backbone.logits(y_BUD[0, -1])
            logits_K[prompter.eot + 1 :] = float("-inf")
            for token in range(prompter.eot if size else 0):
                if repeats([*tokens, token], size):
                    logits_K[token] = float("-inf")
            for token, value in enumerate(logits_K.log_softmax(-1).tolist()):
                every.append(([*tokens, token], score + value))
        every.sort(key=lambda pair: -pair[1])
        ended += [pair for pair in every[:beam] if pair[0][-1] == prompter.eot]
        going = [pair for pair in every if pair[0][-1] != prompter.eot]
        alive = going[:beam]
    return max(ended or alive, key=lambda p: p[1] / len(p[0]) ** length_penalty)


@torch.no_grad()
@pytest.mark.parametrize("beam", [1, 2, 5])
@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
def test_search_is_the_plain_one(
    trio, prompter, mel, langs, beam, length_penalty, row_of
):
    system = Experts(LANGUAGES)
    encoded = encode(trio, system, *mel, langs)
    options = DecodeOptions(beam, length_penalty, max_tokens=8)
    found = Recognizer(trio, system, prompter, options)(encoded, langs)
    for b, lang in enumerate(langs):
        tokens, score = plain(
            trio, system, prompter, row_of(encoded, b), lang, beam, 8, length_penalty
        )
        ended = tokens[-1] == prompter.eot
        assert found[b].tokens == tokens[: len(tokens) - ended]
        assert found[b].ended == ended
        assert found[b].score == pytest.approx(score, abs=1e-4)


def repeats(tokens, size):
    """Whether any run of so many tokens comes twice."""
    runs = [tuple(tokens[i : i + size]) for i in range(len(tokens) - size + 1)]
    return len(set(runs)) < len(runs)


@torch.no_grad()
@pytest.mark.parametrize("beam", [1, 3])
@pytest.mark.parametrize("size", [1, 2])
def test_no_run_of_tokens_comes_twice(trio, prompter, mel, langs, row_of, beam, size):
    system, free = Experts(LANGUAGES), False
    encoded = encode(trio, system, *mel, langs)
    options = DecodeOptions(beam, max_tokens=12)
    bound = DecodeOptions(beam, max_tokens=12, no_repeat_ngram_size=size)
    found = Recognizer(trio, system, prompter, bound)(encoded, langs)
    unbound = Recognizer(trio, system, prompter, options)(encoded, langs)
    for b, row in enumerate(unbound):
        free |= repeats(row.tokens, size)
        alone = row_of(encoded, b)
        tokens, score = plain(
            trio, system, prompter, alone, langs[b], beam, 12, 1.0, size
        )
        assert not repeats(found[b].tokens, size)
        assert found[b].tokens == [x for x in tokens if x != prompter.eot]
        assert found[b].score == pytest.approx(score, abs=1e-4)
    assert free  # without the bound some do


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_repeats_are_those_that_transformers_forbids(size):
    forbid = NoRepeatNGramLogitsProcessor(size)
    for ids_T in torch.randint(4, (30, 12), generator=torch.Generator().manual_seed(0)):
        for length in range(13):
            kept_K = forbid(ids_T[None, :length], torch.zeros(1, 4))[0]
            forbidden = kept_K.isinf().nonzero().flatten().tolist()
            path = Path(tuple(ids_T[:length].tolist()))
            assert sorted(set(path.repeating(size))) == forbidden


@torch.no_grad()
@pytest.mark.parametrize("beam", [1, 3])
def test_who_is_done_may_stay_in_the_batch(
    trio, prompter, mel, langs, beam, monkeypatch
):
    """Until enough are done to leave together: the results are the same."""
    encoded = encode(trio, Experts(LANGUAGES), *mel, langs)
    options, found, left = DecodeOptions(beam, max_tokens=30), {}, []
    keep = Stepper.keep
    monkeypatch.setattr(Stepper, "keep", lambda *args: left.append(1) or keep(*args))
    for share in 0.0, 0.75, 1.0:
        monkeypatch.setattr(search, "LEFT", share)
        recognizer = Recognizer(trio, Experts(LANGUAGES), prompter, options)
        found[share] = recognizer(encoded, langs, [4, 9, 30, 14])
        left.append(0)
    assert left[0] == 0 and left.count(1) > 2  # none leaves, or one by one
    for hypotheses in found[0.75], found[1.0]:
        for a, b in zip(found[0.0], hypotheses, strict=True):
            assert a.tokens == b.tokens and a.ended == b.ended
            assert a.score == pytest.approx(b.score, abs=1e-4)


@torch.no_grad()
def test_a_wider_beam_finds_what_is_likelier(trio, prompter, mel, langs):
    """Without length penalty and end: the sum of log probabilities can only gain."""
    system = Experts(LANGUAGES)
    encoded = encode(trio, system, *mel, langs)
    scores = []
    for beam in (1, 4, 16):
        options = DecodeOptions(beam, 0.0, max_tokens=2)
        recognizer = Recognizer(trio, system, prompter, options)
        recognizer.never_K[prompter.eot] = float("-inf")
        scores.append([row.score for row in recognizer(encoded, langs)])
    assert all(
        a <= b + 1e-5
        for row in zip(*scores, strict=True)
        for a, b in zip(row, row[1:], strict=False)
    )
    assert scores[0] != scores[1]


@torch.no_grad()
@pytest.mark.parametrize("kind", ["vanilla", "single", "mole"])
@pytest.mark.parametrize("beam", [1, 3])
def test_found_languages_are_decoded_as_given_ones(
    trio, make_mole, prompter, mel, kind, beam
):
    """The first token was read to find the language: it is not read twice."""
    systems = {"vanilla": System(LANGUAGES), "single": Single(LANGUAGES, "ru")}
    system = systems.get(kind) or make_mole()
    recognizer = Recognizer(trio, system, prompter, DecodeOptions(beam, max_tokens=8))
    encoded = encode(trio, system, *mel)
    found = recognizer(encoded)
    langs = [row.lang for row in found]
    assert langs == recognizer.find_languages(encoded)[0]
    for a, b in zip(found, recognizer(encoded, langs), strict=True):
        assert (a.tokens, a.ended) == (b.tokens, b.ended)
        assert a.score == pytest.approx(b.score, abs=1e-4)
        assert sum(a.posteriors.values()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    "options",
    [
        {"beam_size": 0},
        {"max_tokens": 0},
        {"maxlenratio": -1.0},
        {"no_repeat_ngram_size": -1},
    ],
)
def test_options_are_checked(options):
    (name,) = options
    with pytest.raises(ValueError, match=f"{name} must be . or more, but got"):
        DecodeOptions(**options)


@torch.no_grad()
def test_a_beam_may_be_larger_than_what_is_left(trio, prompter, mel, langs):
    """Three tokens and the end may come, the beam is 8."""
    system = Experts(LANGUAGES)
    encoded = encode(trio, system, *mel, langs)
    options = DecodeOptions(beam_size=8, max_tokens=3)
    recognizer = Recognizer(trio, system, prompter, options)
    recognizer.never_K[3 : prompter.eot] = float("-inf")
    for row in recognizer(encoded, langs):
        assert set(row.tokens) <= {0, 1, 2}
        assert row.score > float("-inf")


@pytest.mark.parametrize("beam", [1, 2, 5, 30])
def test_candidates_are_the_best_of_all_hypotheses(beam):
    """Twice the beam, so that enough are left when a whole beam ends."""
    generator = torch.Generator().manual_seed(0)
    logits_BQK = torch.randn(2, beam, 40, generator=generator)
    scores_BQ = torch.randn(2, beam, generator=generator)
    totals = (logits_BQK.log_softmax(-1) + scores_BQ[:, :, None]).flatten(1)
    values, parents, tokens = _candidates(logits_BQK, scores_BQ, beam)
    width = 1 if beam == 1 else min(2 * beam, 40)
    best = totals.sort(descending=True)
    torch.testing.assert_close(torch.tensor(values), best.values[:, :width])
    places = [
        [q * 40 + k for q, k in zip(*r, strict=True)]
        for r in zip(parents, tokens, strict=True)
    ]
    assert places == best.indices[:, :width].tolist()


def test_what_may_not_come_is_no_candidate():
    utterance = Utterance(limit=9)
    candidates = [(-1.0, 0, 7), (float("-inf"), 0, 8), (float("-inf"), 5, 9)]
    assert utterance.advance(candidates, beam=3, eot=99) == [0]
    assert [path.tokens for path in utterance.alive] == [(7,)]


def test_end_counts_among_the_best_only():
    utterance = Utterance(limit=9)
    candidates = [(-1.0, 0, 7), (-1.5, 0, 8), (-2.0, 0, 99)]
    assert utterance.advance(candidates, beam=2, eot=99) == [0, 0]
    assert utterance.ended == []
    candidates = [(-1.1, 0, 99), (-1.2, 1, 7), (-1.3, 0, 7), (-1.4, 1, 99)]
    assert utterance.advance(candidates, beam=2, eot=99) == [1, 0]
    assert utterance.ended == [Path((7,), -1.1, True)]
    assert [path.tokens for path in utterance.alive] == [(8, 7), (7, 7)]


def test_length_penalty_prefers_the_longer():
    short, long = Path((1,), -2.0, True), Path((1, 2, 3), -3.0, True)
    utterance = Utterance(limit=9, ended=[short, long])
    assert utterance.best(0.0) == short
    assert utterance.best(1.0) == long
