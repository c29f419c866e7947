"""The time left is that of all batches to come, at the speed of this epoch."""

import logging
from itertools import chain
from types import SimpleNamespace

import pytest
from espnet2.train.trainer import Trainer

from espnet_lora_experts.plugin import progress
from espnet_lora_experts.plugin.progress import Progress
from espnet_lora_experts.plugin.trainer import ExpertTrainer


@pytest.fixture
def said(monkeypatch, caplog):
    """What is logged where each batch takes so many seconds."""

    def said(batches, seconds, epoch, epochs):
        clock = chain([0.0], (seconds * n for n in range(100)))
        monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
        caplog.set_level(logging.INFO)
        caplog.clear()
        assert [*Progress(batches, epoch, epochs)] == [*batches]
        return caplog.messages

    return said


def test_the_time_left_is_logged_from_the_first_epoch_on(said):
    assert said(range(6), 10.0, 1, 3) == [
        "1/3epoch: 2 of 6 batches. Estimated time to finish: 0:02:40",
        "1/3epoch: 4 of 6 batches. Estimated time to finish: 0:02:20",
    ]


def test_the_last_epoch_has_none_after_it(said):
    assert said(range(4), 20.0, 2, 2)[-1].endswith(
        "3 of 4 batches. Estimated time to finish: 0:00:20"
    )


def test_a_short_epoch_says_nothing(said):
    assert said(range(9), 1.0, 1, 9) == []


def test_espnet_still_counts_the_batches():
    assert len(Progress([1, 2, 3], 1, 1)) == 3


@pytest.mark.parametrize("batches", [[1, 2], iter([1, 2])], ids=["counted", "not"])
def test_the_trainer_tells_it_where_batches_can_be_counted(
    monkeypatch, tmp_path, batches
):
    given = []
    monkeypatch.setattr(
        Trainer, "train_one_epoch", lambda iterator, **options: given.append(iterator)
    )
    reporter, alone = SimpleNamespace(epoch=3), SimpleNamespace(dist_rank=None)
    options = SimpleNamespace(max_epoch=5, output_dir=tmp_path)
    reporter.stats, model = {}, SimpleNamespace(system=None)
    reporter.count = 0
    ExpertTrainer.train_one_epoch(model, batches, reporter, options, alone)
    counted = isinstance(batches, list)
    wanted = Progress(batches, 3, 5) if counted else batches
    assert [steps.batches for steps in given] == [wanted]
