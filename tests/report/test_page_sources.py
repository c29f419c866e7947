"""What the page reads: results, texts, TensorBoard's files, sweeps."""

import json

import pytest

from espnet_lora_experts.report.decodes import TestSet
from espnet_lora_experts.report.page import sources


@pytest.mark.parametrize(
    ("content", "error", "said"),
    [
        (None, FileNotFoundError, r"results\.json must exist, but does not; stage 10"),
        (
            '{"meta": ',
            ValueError,
            r"results\.json must be whole JSON, but got: .*stage 10",
        ),
        ("[" * 10**5, ValueError, r"results\.json must be whole JSON, .*recursion"),
        ("[1]", ValueError, r"results\.json must be the results of stage 10"),
        ('{"meta": {}}', ValueError, r"results\.json must be the results of stage 10"),
        ('{"meta": {}, "systems": {}}', ValueError, "results of stage 10"),
        ('{"meta": {}, "systems": {"kd": {}}}', ValueError, "results of stage 10"),
    ],
    ids=["missing", "broken", "deep", "list", "lacking", "empty", "unscored"],
)
def test_results_that_are_none_are_named_with_their_stage(
    tmp_path, content, error, said
):
    path = tmp_path / "results.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(error, match=said):
        sources.read_results(path)


def test_texts_are_read_as_far_as_they_are_there_and_nothing_is_written(tmp_path):
    test_set = TestSet("test", ["a"], ["es"], ["uno"], ["a"])
    folder = tmp_path / "kd/decode_agnostic/test"
    folder.mkdir(parents=True)
    (folder / "text").write_text("a Dos!\n")
    (folder / "lang").write_text("a fr\n")
    rows = {"aware": {}, "agnostic": {}}
    scored = {"systems": {"kd": rows, "gone": rows}}
    found = sources.read_decoded(tmp_path, scored, [test_set])
    assert list(found) == [("kd", "agnostic")]
    assert found["kd", "agnostic"].hypotheses == ["dos"]
    assert found["kd", "agnostic"].found == ["fr"]
    assert {path.name for path in folder.iterdir()} == {"text", "lang"}
    assert sources.read_decoded(tmp_path, scored, []) == {}
    (folder / "text").write_text("b dos\n")
    with pytest.raises(ValueError, match="text must have the 1 utterances"):
        sources.read_decoded(tmp_path, scored, [test_set])


def write_events(folder, points):
    """As ESPnet's reporter does, with torch's writer."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        for tag, value, step in points:
            writer.add_scalar(tag, value, step)


def test_a_curve_is_what_was_reported_between_the_ends_of_epochs(tmp_path):
    folder = tmp_path / "kd/tensorboard"
    train = [("loss", 3, 10), ("loss", 2, 20), ("loss", 2.5, 25), ("iter_epoch", 1, 25)]
    write_events(folder / "train", train)
    write_events(folder / "valid", [("loss", 4, 25)])
    # A training that was resumed has another file.
    train = [("loss", 1, 35), ("loss", 1.5, 50), ("iter_epoch", 2, 50)]
    write_events(folder / "train", train)
    write_events(folder / "valid", [("loss", 5, 50)])
    curves = sources.read_curves(tmp_path, ["vanilla", "kd"], "loss")
    assert list(curves) == ["kd"]
    assert curves["kd"].train == ([10, 20, 35], [3, 2, 1])
    assert curves["kd"].valid == ([25, 50], [4, 5])
    assert sources.read_curves(tmp_path, ["kd"], "acc") == {}


def test_epochs_shorter_than_a_report_are_curves_too(tmp_path):
    folder = tmp_path / "kd/tensorboard"
    write_events(folder / "train", [("loss", 2.5, 4), ("iter_epoch", 1, 4)])
    write_events(folder / "valid", [("loss", 4, 4)])
    curve = sources.read_curves(tmp_path, ["kd"], "loss")["kd"]
    assert (curve.train, curve.valid) == (([4], [2.5]), ([4], [4]))


def write_sweep(expdir, name, layers):
    """Results of a sweep, and the variants that it trained; None is no MoLE."""
    rows = {}
    for system, count in layers.items():
        what = {} if count is None else {"mole": {"merged_layers": count}}
        (expdir / system).mkdir(parents=True, exist_ok=True)
        (expdir / system / "system.json").write_text(json.dumps(what))
        rows[system] = {"aware": {"of": system}}
    folder = expdir / "sweeps" / name
    folder.mkdir(parents=True)
    scored = {"meta": {}, "systems": rows}
    (folder / "results.json").write_text(json.dumps(scored))


def test_the_sweep_is_the_one_that_tried_most_numbers_of_layers(tmp_path):
    assert sources.read_sweep(tmp_path) == {}
    write_sweep(tmp_path, "router", {"multi": None, "mole": 3, "mole_std": 3})
    assert sources.read_sweep(tmp_path) == {}
    write_sweep(
        tmp_path, "layers", {"multi": None, "mole": 3, "mole_L1_100": 4, "mole_a": 1}
    )
    found = sources.read_sweep(tmp_path)
    assert {layers: row["aware"]["of"] for layers, row in found.items()} == {
        1: "mole_a",
        3: "mole",
        4: "mole_L1_100",
    }
    assert list(found) == [1, 3, 4]
    (tmp_path / "mole/system.json").write_text("{")
    with pytest.raises(ValueError, match=r"mole/system\.json must be whole JSON"):
        sources.read_sweep(tmp_path)
