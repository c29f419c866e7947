"""Numbers that go wrong are named, counted, and stop a training in time."""

import logging
from math import inf, nan

import pytest
from espnet2.train.reporter import Reporter, aggregate

from espnet_lora_experts.plugin.watch import MOST_SKIPPED, WINDOW, Watch

LANGS = ["es", "ru"]


@pytest.fixture
def epoch(caplog):
    """Steps of one epoch: statistics and norm of each; gives its own statistics."""
    caplog.set_level(logging.WARNING)

    def epoch(watch, steps, alpha=(), accum_grad=1):
        reporter = Reporter()
        reporter.set_epoch(1)
        observed = reporter.start_epoch("train")
        watch.begin()
        for i, (stats, norm) in enumerate(steps, 1):
            observed.register(stats, 1.0)
            if norm is not None:  # as ESPnet: of steps that are taken
                observed.register({"grad_norm": norm})
            observed.next()
            watch.after(observed, i, [f"utt{i}"])
        watch.end(observed, dict(alpha))
        return {key: aggregate(values) for key, values in observed.stats.items()}

    return epoch


FINE, BROKEN = ({"loss": 1.0}, 1.0), ({"loss": nan}, None)


def test_a_step_that_is_skipped_is_counted_and_its_utterances_are_named(epoch, caplog):
    steps = [FINE, BROKEN, FINE, ({"loss": 1.0}, None)]
    assert epoch(Watch(), steps)["skipped_steps"] == 2
    assert caplog.messages == [
        "the loss is not finite, the step is skipped; one of its utterances may be "
        "broken: utt2",
        "the gradient is not finite, the step is skipped; one of its utterances may be "
        "broken: utt4",
    ]
    assert epoch(Watch(), [FINE])["skipped_steps"] == 0


def test_all_batches_of_a_skipped_step_are_named(epoch, caplog):
    steps = [({"loss": 1.0}, None), FINE, ({"loss": inf}, None), ({"loss": 1.0}, None)]
    assert epoch(Watch(accum_grad=2), steps)["skipped_steps"] == 1
    assert caplog.messages[0].endswith("broken: utt3, utt4")


def test_too_many_in_a_row_end_it(epoch):
    row = [BROKEN] * (MOST_SKIPPED - 1)
    assert epoch(Watch(), [*row, FINE, *row, FINE])["skipped_steps"] == 2 * len(row)
    with pytest.raises(ValueError, match=f"not in {MOST_SKIPPED} steps in a row, the"):
        epoch(Watch(), [FINE, *row, BROKEN])


def test_a_row_may_cross_epochs(epoch):
    watch = Watch()
    epoch(watch, [FINE, *[BROKEN] * (MOST_SKIPPED - 1)])
    with pytest.raises(ValueError, match="in a row, the last of utt1; lower"):
        epoch(watch, [BROKEN])


def test_an_epoch_without_a_step_ends_it(epoch):
    with pytest.raises(ValueError, match="in none of the 3 steps of this epoch"):
        epoch(Watch(), [BROKEN] * 3)


def test_a_diverging_expert_is_named_once_with_its_worst_batch(epoch, caplog):
    steps = [({"loss": 1.0, "loss_es": 1.0, "loss_ru": 1.0}, 1.0)] * WINDOW
    worse = [
        ({"loss": 5.0, "loss_es": 1.0, "loss_ru": 5.0 + i}, 1.0) for i in range(20)
    ]
    silent = [({"loss": 1.0, "loss_es": 1.0, "loss_ru": nan}, 1.0)] * 9
    stats = epoch(Watch(LANGS), [*steps, *silent, *worse])
    [said] = caplog.messages
    assert said.startswith("ru diverges: a loss of 3.") and "after 1.00" in said
    assert stats["diverging"] == 1
    assert epoch(Watch(LANGS), steps * 3)["diverging"] == 0


def test_alpha_that_collapsed_is_named(epoch, caplog):
    stats = epoch(Watch(), [FINE], {"es": 0.995, "ru": 0.005})
    assert stats["alpha_es"] == pytest.approx(0.995)
    assert caplog.messages[0].startswith("alpha has collapsed: 0.995 of the mixture is")
    caplog.clear()
    epoch(Watch(), [FINE], {"es": 0.9, "ru": 0.1})
    epoch(Watch(), [FINE], {"es": 1.0})  # there is but one
    assert caplog.messages == []


@pytest.fixture
def validated(caplog):
    def validated(**stats):
        caplog.set_level(logging.WARNING)
        caplog.clear()
        reporter = Reporter()
        reporter.set_epoch(1)
        observed = reporter.start_epoch("valid")
        observed.register(stats, 1.0)
        Watch(LANGS).after_validation(observed)
        return caplog.text

    return validated


@pytest.mark.parametrize(
    "es, ru, dead", [(1.0, 0.0, True), (1.0, 0.2, False), (0.0, 0.0, False)]
)
def test_a_router_that_knows_but_one_language_is_named(validated, es, ru, dead):
    said = validated(loss=1.0, acc_lid_es=es, acc_lid_ru=ru)
    assert ("all of ['es', 'ru'] are taken for es" in said) == dead


def test_a_validation_must_be_finite(validated):
    assert validated(loss=1.0) == ""
    with pytest.raises(ValueError, match="validation must have a finite loss"):
        validated(loss=nan)
