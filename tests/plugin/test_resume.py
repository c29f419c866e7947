"""A folder that was left at any moment becomes what it is right after an epoch."""

import os
from types import SimpleNamespace

import pytest
import torch
from espnet2.train.reporter import Reporter

from espnet_lora_experts.plugin.resume import BEFORE, CHECKPOINT, keep, mend

LOSSES = [3.0, 1.0, 2.0]  # the second epoch is the best


def options(**changes):
    given = {
        "best_model_criterion": [("valid", "loss", "min")],
        "early_stopping_criterion": ("valid", "loss", "min"),
        "keep_nbest_models": 1,
        "patience": None,
    }
    return SimpleNamespace(**given | changes)


def states(epoch):
    """A checkpoint of an epoch; its weights are its number."""
    reporter = Reporter()
    for i, loss in enumerate(LOSSES[:epoch], 1):
        reporter.set_epoch(i)
        for part in "train", "valid":
            with reporter.observe(part) as observed:
                observed.register({"loss": loss}, 1.0)
                observed.next()
    model = {"x": torch.full((4,), float(epoch))}
    return {"model": model, "reporter": reporter.state_dict()}


@pytest.fixture
def folder(tmp_path):
    """As ESPnet leaves it after three epochs."""
    torch.save(states(2), tmp_path / BEFORE)
    torch.save(states(3), tmp_path / CHECKPOINT)
    for epoch in 2, 3:
        torch.save(states(epoch)["model"], tmp_path / f"{epoch}epoch.pth")
    (tmp_path / "latest.pth").symlink_to("3epoch.pth")
    (tmp_path / "valid.loss.best.pth").symlink_to("2epoch.pth")
    return tmp_path


def content(folder):
    return {
        path.name: os.readlink(path) if path.is_symlink() else path.read_bytes()
        for path in sorted(folder.iterdir())
    }


def cut(path):
    path.write_bytes(path.read_bytes()[:-50])


def test_a_whole_folder_stays_as_it_is(folder):
    before = content(folder)
    assert mend(folder, options()) is None
    assert content(folder) == before


@pytest.mark.parametrize(
    "left",
    [
        lambda folder: cut(folder / "3epoch.pth"),
        lambda folder: (folder / "3epoch.pth").unlink(),
        lambda folder: (folder / "latest.pth").unlink(),
        lambda folder: (folder / "valid.loss.best.pth").unlink(),
        lambda folder: torch.save(states(1)["model"], folder / "1epoch.pth"),
    ],
    ids=["half an epoch", "no epoch", "no latest", "no best", "epochs not removed"],
)
def test_what_a_kill_leaves_out_is_made_up_for(folder, left):
    wanted = content(folder)
    left(folder)
    assert content(folder) != wanted
    mend(folder, options())
    made = content(folder)
    assert {*made} == {*wanted} and all(
        made[name] == value for name, value in wanted.items() if name != "3epoch.pth"
    )
    assert torch.load(folder / "3epoch.pth")["x"][0] == 3


@pytest.mark.parametrize("broken", [cut, lambda path: path.unlink()])
def test_the_checkpoint_before_takes_the_place_of_a_broken_one(folder, broken):
    broken(folder / CHECKPOINT)
    mend(folder, options())
    assert (folder / CHECKPOINT).read_bytes() == (folder / BEFORE).read_bytes()
    assert os.readlink(folder / "latest.pth") == "2epoch.pth"


def test_half_of_the_first_epochs_checkpoint_is_no_start(tmp_path):
    torch.save(states(1), tmp_path / CHECKPOINT)
    cut(tmp_path / CHECKPOINT)
    assert mend(tmp_path, options()) is None
    assert content(tmp_path) == {}


def test_a_broken_checkpoint_stays_where_epochs_could_be_lost(folder):
    cut(folder / CHECKPOINT)
    (folder / BEFORE).unlink()
    before = content(folder)
    mend(folder, options())
    assert content(folder) == before


def test_the_best_that_is_left_is_linked(folder):
    (folder / "2epoch.pth").unlink()
    mend(folder, options())
    assert os.readlink(folder / "valid.loss.best.pth") == "3epoch.pth"


@pytest.mark.parametrize("patience, over", [(None, None), (0, 3), (1, None)])
def test_a_training_that_was_over_is_over(folder, patience, over):
    assert mend(folder, options(patience=patience)) == over


def test_the_last_checkpoint_is_kept_beside(folder):
    keep(folder)
    assert (folder / BEFORE).read_bytes() == (folder / CHECKPOINT).read_bytes()
