"""Batches: shares of languages, padded size, seeds, ranks."""

import logging
from collections import Counter

import numpy as np
import pytest
from espnet2.iterators.sequence_iter_factory import SequenceIterFactory

from espnet_lora_experts.plugin.sampler import LanguageSampler, ShardedSampler
from espnet_lora_experts.whisper.features import MARGIN

SIZES = {"en": 100, "ru": 30, "yue": 11}
BINS = 1_000_000


def corpus(sizes=SIZES, seed=0):
    rng = np.random.RandomState(seed)
    utt2lang = {f"{lang}{i:03}": lang for lang, n in sizes.items() for i in range(n)}
    return {utt: 8_000 * rng.randint(1, 61) for utt in utt2lang}, utt2lang


def sampler(weights="uniform", sizes=SIZES, **options):
    lengths, utt2lang = corpus(sizes)
    options = {"batch_bins": BINS, **options}
    return LanguageSampler(lengths, utt2lang, weights, **options)


def shares(batches):
    return Counter(utt[:-3] for batch in batches for utt in batch)


def test_uniform_draws_every_language_equally_often():
    batches = sampler("uniform").generate(0)
    assert shares(batches) == dict.fromkeys(SIZES, 47)  # 141 utterances / 3
    times = Counter(utt for batch in batches for utt in batch)
    ru = [times[f"ru{i:03}"] for i in range(30)]
    assert set(ru) == {1, 2}  # whole passes first, then a part of one


def test_weights_give_the_shares_asked_for():
    weights = {"en": 1.0, "ru": 0.25, "yue": 0.5, "ko": 0.25}  # ko: not in this corpus
    found = shares(sampler(weights).generate(3))
    assert found == {"en": round(141 / 1.75), "ru": 20, "yue": 40}


def test_fewer_utterances_at_as_many_steps():
    """The smaller set is in the larger one; validation has all."""
    drawn = {}
    for most in (5, 20, None):
        batches = sampler(most_per_language=most).generate(1)
        assert shares(batches) == dict.fromkeys(SIZES, 47)
        drawn[most] = {utt for batch in batches for utt in batch}
    assert shares([sorted(drawn[5])]) == dict.fromkeys(SIZES, 5)
    assert shares([sorted(drawn[20])]) == {"en": 20, "ru": 20, "yue": 11}
    assert drawn[5] < drawn[20]
    again = sampler(most_per_language=5).generate(2)
    assert {utt for batch in again for utt in batch} == drawn[5]
    whole = sampler(most_per_language=5, shuffle=False)
    assert list(whole) == list(sampler(shuffle=False))


def test_at_least_one_utterance_of_a_language_is_kept():
    with pytest.raises(ValueError, match="most_per_language must be 1 .* but got 0"):
        sampler(most_per_language=0)


@pytest.mark.parametrize("options", [{"weights": "proportional"}, {"shuffle": False}])
@pytest.mark.parametrize("seed", [0, 5])
def test_every_utterance_exactly_once(options, seed):
    utts = [utt for batch in sampler(**options).generate(seed) for utt in batch]
    assert sorted(utts) == sorted(corpus()[0])


@pytest.mark.parametrize("bins", [490_240, 600_000, BINS, 10 * BINS])
@pytest.mark.parametrize("weights", ["uniform", "proportional"])
@pytest.mark.parametrize("shuffle", [True, False])
def test_padded_batches_fit(bins, weights, shuffle):
    lengths, _ = corpus()
    for seed in range(3):
        batches = sampler(weights, batch_bins=bins, shuffle=shuffle).generate(seed)
        sizes = [(max(lengths[u] for u in b) + MARGIN) * len(b) for b in batches]
        assert max(sizes) <= bins


def test_batches_are_full_and_hold_similar_lengths():
    lengths, _ = corpus()
    batches = sampler().generate(0)
    costs = [[lengths[utt] + MARGIN for utt in batch] for batch in batches]
    padded = sum(max(c) * len(c) for c in costs)
    assert sum(map(sum, costs)) > 0.9 * padded
    assert padded > 0.7 * BINS * len(batches)


def test_epochs_are_drawn_anew_and_reproducibly():
    a, b = sampler(), sampler()
    assert a.generate(1) == b.generate(1)
    assert a.generate(1) != a.generate(2)
    assert sorted(map(sorted, a.generate(1))) != sorted(map(sorted, a.generate(2)))
    fixed = sampler(shuffle=False)
    assert fixed.generate(1) == fixed.generate(2) == list(fixed)


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_ranks_partition_every_batch(world, seed):
    whole = sampler(min_batch_size=world, batch_bins=world * 490_240)
    lang_of = corpus()[1]
    shards = [ShardedSampler(whole, rank, world) for rank in range(world)]
    assert {len(shard) for shard in shards} == {len(whole)}
    parts = zip(*(shard.generate(seed) for shard in shards), strict=True)
    for batch, rows in zip(whole.generate(seed), parts, strict=True):
        assert all(rows)  # a rank without a row would wait for ever
        assert sorted(utt for part in rows for utt in part) == sorted(batch)
        assert max(map(len, rows)) - min(map(len, rows)) <= 1
        of_ranks = [{lang_of[utt] for utt in part} for part in rows]
        split = sum(map(len, of_ranks)) - len(set.union(*of_ranks))
        assert split < world  # at most one language between two ranks


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 9])
@pytest.mark.parametrize("world", [2, 3, 4])
def test_no_batch_is_smaller_than_the_ranks(count, world):
    """Bins hold one utterance for each rank: where does the remainder go?"""
    lengths = {f"u{i}": 16_000 for i in range(count)}
    bins = world * (16_000 + MARGIN)
    langs = dict.fromkeys(lengths, "es")
    batches = LanguageSampler(
        lengths, langs, "proportional", bins, False, min_batch_size=world
    ).generate(0)
    assert {len(batch) for batch in batches} == {world}
    assert {utt for batch in batches for utt in batch} == set(lengths)


def test_remainder_is_taken_from_larger_batches():
    lengths = {f"u{i}": 16_000 for i in range(7)}
    langs = dict.fromkeys(lengths, "es")
    bins = 3 * (16_000 + MARGIN)
    batches = LanguageSampler(
        lengths, langs, "proportional", bins, False, min_batch_size=2
    ).generate(0)
    assert sorted(map(len, batches)) == [2, 2, 3]
    assert sorted(utt for batch in batches for utt in batch) == sorted(lengths)


@pytest.mark.parametrize("per_epoch", [1, 3, 200])
def test_short_and_long_epochs_are_whole(per_epoch):
    """ESPnet cuts ``num_iters_per_epoch`` batches by ``len``; none may be missing."""
    batches = sampler("proportional", batch_bins=600_000)
    assert min(len(batches.generate(seed)) for seed in range(20)) == len(batches)
    factory = SequenceIterFactory([], batches, num_iters_per_epoch=per_epoch)
    for epoch in range(1, 4 * len(batches)):
        assert len(factory.build_iter(epoch, True).batch_sampler) == per_epoch
        if per_epoch > len(batches):
            break


def test_leaves_out_what_whisper_cannot_hear(caplog):
    lengths, utt2lang = {"a": 480_001, "b": 0, "c": 480_000, "d": 16_000}, {}
    utt2lang = dict.fromkeys(lengths, "es")
    with caplog.at_level(logging.WARNING):
        batches = LanguageSampler(lengths, utt2lang, "proportional").generate(0)
    assert sorted(utt for batch in batches for utt in batch) == ["c", "d"]
    assert "2 utterance(s) are empty or longer than 30 s" in caplog.text
    assert "a, b" in caplog.text


@pytest.mark.parametrize(
    "change, message",
    [
        ({"weights": "equal"}, "must be uniform, proportional or .*got equal"),
        ({"weights": {"es": 1}}, r"each of \['es', 'ru'\], but got \{'es': 1\}"),
        ({"weights": {"es": 1, "ru": 0}}, "positive number"),
        ({"weights": {"es": 1, "ru": -1}}, "positive number"),
        ({"utt2lang": {"a": "es"}}, "must be in utt2lang, but 1 are not: b"),
        ({"batch_bins": 42_000, "min_batch_size": 2}, "must hold 2 .*got 42000"),
        ({"lengths": {"a": 0}}, "no utterance of 1 is between 0 and 30 s"),
    ],
)
def test_options_are_checked(change, message):
    given = {"lengths": {"a": 16_000, "b": 16_000}, "utt2lang": {"a": "es", "b": "ru"}}
    with pytest.raises(ValueError, match=message):
        LanguageSampler(**{**given, **change})
