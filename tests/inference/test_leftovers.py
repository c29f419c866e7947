"""What is left in memory of calls, switches and folds: nothing. Long: local/load.py."""

import gc

import pytest

ROUNDS = 10


@pytest.fixture
def left():
    """Runs a work often; gives the objects that each run leaves, on an average."""

    def objects():
        gc.collect()
        return len(gc.get_objects())

    def left(work):
        for _ in range(3):  # caches fill
            work()
        before = objects()
        for _ in range(ROUNDS):
            work()
        return (objects() - before) / ROUNDS

    return left


@pytest.mark.parametrize("name", ["multi", "mono", "mole", "soft"])
def test_calls_leave_nothing(load, clips, left, name):
    speech2text = load(name)
    assert left(lambda: speech2text(clips, ["ru", "es", "ru", "ja", "es"])) < 1


def test_switches_and_folds_leave_nothing(load, clips, left):
    mono = load("mono")

    def work():
        mono.experts.use("es")
        mono.experts.fold()(clips[0])
        mono.experts.mix({"es": 0.7, "ja": 0.3})
        mono(clips[0])
        mono.experts.use()

    assert left(work) < 1


def test_experts_that_come_and_go_leave_nothing(load, folders, left):
    multi = load("multi")

    def work():
        multi.experts.add("other", folders["mono"] / "experts/ja")
        multi.experts.drop("other")

    assert left(work) < 1
