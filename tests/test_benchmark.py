"""The arithmetic of benchmark and load: ratios, marks, counts, growth."""

import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "local"))

import benchmark
import scale
from bench import endurance, harness
from bench.endurance import Endurance
from bench.harness import Contest, Row, compete, count, line, row
from bench.world import Clip, World


def contest(ours, peer, **kwargs):
    """Works that only say how long they took."""
    return Contest(iter_of(ours), iter_of(peer), 12.0, counted=False, **kwargs)


def iter_of(times):
    times = iter([1.0, *times])  # the first is the warm-up's
    return lambda: next(times)


@pytest.mark.parametrize(
    ("saves", "reach", "ratio", "reached"),
    [(True, 2.5, 3.0, True), (True, 3.5, 3.0, False)]
    + [(False, 0.4, 1 / 3, True), (False, 0.3, 1 / 3, False)],
)
def test_ratio_is_the_median_of_rounds_and_reach_is_marked(
    saves, reach, ratio, reached
):
    one = Row("name", "we", "they", reach, saves, make=None)
    found = compete(one, contest([1.0, 2.0, 4.0], [2.0, 6.0, 20.0]), rounds=3)
    assert found["ratio"] == pytest.approx(ratio)
    assert found["spread"] == pytest.approx([2, 5] if saves else [0.2, 0.5])
    assert found["reached"] is reached
    assert ("below reach" in line(found)) is not reached
    assert found["audio_s_per_s"] == {"ours": 6.0, "peer": 2.0}


def test_memory_may_have_a_reach_of_its_own():
    one = Row("name", "we", "they", 1, False, make=None, memory=1.3)
    found = compete(one, contest([1.0], [1.0]), rounds=1)
    found["memory_reached"] = False
    assert "reach ≤ 1.3 times) **below reach**" in line(found)


def test_operations_are_counted_in_either_library():
    x, W = torch.ones(5, 3), torch.ones(7, 3)
    linear = torch.ops.mkldnn._linear_pointwise
    for work in lambda: x @ W.T, lambda: linear(x, W, None, "none", [], ""):
        assert count(work) == 2 * 5 * 3 * 7


def test_counted_ratio_goes_the_way_of_the_measured_one():
    flops = {"ours": 2, "peer": 6}
    assert harness._counted(flops, saves=True) == 3
    assert harness._counted(flops, saves=False) == pytest.approx(1 / 3)
    assert harness._counted({"ours": 0, "peer": 6}, saves=True) is None


def test_note_may_wait_for_the_rounds(monkeypatch):
    monkeypatch.setattr(harness, "ROWS", {})
    said = []
    works = contest([1.0], [1.0], note=lambda: f"{len(said)} runs")
    one = row("name", "we", "they", faster=2)(lambda world: said.append(1) or works)
    assert compete(harness.ROWS["name"], one(None), 1)["note"] == "1 runs"


def test_a_row_that_fails_takes_no_other_with_it(monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "ROWS", {})
    monkeypatch.setattr(harness, "ROWS", benchmark.ROWS)
    row("first", "we", "they", faster=2)(lambda world: contest([1.0], [2.0]))
    row("broken", "we", "they", faster=2)(lambda world: 1 / 0)
    row("last", "we", "they", faster=2)(lambda world: contest([1.0], [3.0]))
    found = benchmark.run(benchmark.ROWS, None, 1)
    assert {x["row"]: x["ratio"] for x in found} == {"first": 2, "last": 3}
    assert "ZeroDivisionError" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "option", "known"),
    [
        (benchmark.__doc__, "--rows", harness.ROWS),
        (scale.__doc__, "--tables", scale.TABLES),
    ],
)
def test_examples_of_the_help_name_what_there_is(text, option, known):
    _, *examples = text.replace("\\\n", " ").split(option)
    for example in examples:
        names = example.splitlines()[0].split(" --")[0].split()
        assert names and set(names) <= set(known)
    assert examples


def test_clips_come_from_all_over_the_corpus_and_suffice():
    world = World()
    world.clips = [
        Clip(f"{lang}{i:02}", lang, "", np.ones(i + 1))
        for lang in ("es", "fr")
        for i in range(13)
    ]
    some = world.pick(6, ["es", "fr"])
    assert " ".join(clip.utt for clip in some) == "es00 es04 es08 fr00 fr04 fr08"
    longest = world.pick(4, ["es", "fr"], equal=True)
    assert [len(clip.speech) for clip in longest] == [12] * 4
    assert len(world.pick(26, ["es", "fr"])) == 26
    with pytest.raises(ValueError, match=r"14 clips of es, but has 13; remove it"):
        world.pick(28, ["es", "fr"])


def test_growth_is_that_of_the_end_and_counted_by_thousands(monkeypatch):
    mib = iter([50, 300, *range(100, 118)])  # a start that is no growth
    monkeypatch.setattr(endurance, "resident", lambda name: 1024 * next(mib))
    done = Endurance("row", "work")
    for i in range(10_000):
        done.did(i % 5_000 == 7, 10_000)
    assert (done.count, done.wrong, len(done.mib)) == (10_000, 2, 20)
    assert done.warm[0] == (1500, 100) and done.warm[-1] == (10_000, 117)
    assert done.slope == pytest.approx(2)


def test_work_that_is_no_measurement_has_no_growth():
    assert Endurance("row", "work").slope is None


def test_turns_are_taken_once():
    turns, lock, found = iter(range(500)), threading.Lock(), []

    def work():
        found.extend(endurance.taken(turns, lock))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == list(range(500))
