"""Batches hold every clip once, fit, and cost the least of all cuts."""

import itertools

import pytest

from espnet_lora_experts.whisper.batching import batches

LENGTHS = [3, 10, 1, 9, 2, 8, 30]


def fits(count, longest):
    return count * longest <= 21


def cost(lengths, cut, overhead):
    return sum(overhead + len(b) * max(lengths[i] for i in b) for b in cut)


@pytest.mark.parametrize("overhead", [0, 1, 5, 100])
def test_no_cut_of_the_sorted_clips_costs_less(overhead):
    found = batches(LENGTHS, fits, overhead)
    order = [i for batch in found for i in batch]
    assert sorted(order) == [*range(7)]
    assert [LENGTHS[i] for i in order] == sorted(LENGTHS, reverse=True)
    every = []
    for places in itertools.product([0, 1], repeat=6):
        bounds = [0, *(i + 1 for i, cut in enumerate(places) if cut), 7]
        cut = [order[a:b] for a, b in itertools.pairwise(bounds)]
        if all(len(b) == 1 or fits(len(b), LENGTHS[b[0]]) for b in cut):
            every.append(cost(LENGTHS, cut, overhead))
    assert cost(LENGTHS, found, overhead) == min(every)


def test_what_fits_nowhere_is_a_batch_by_itself():
    assert batches([9, 9], lambda count, longest: False) == [[0], [1]]


def test_no_clips_are_no_batches():
    assert batches([], fits) == []
