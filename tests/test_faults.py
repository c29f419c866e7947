"""The harness finds what loses: jobs that are not safe are told from one that is."""

import random
import signal
from functools import partial
from pathlib import Path

import pytest

from espnet_lora_experts import atomic
from tests.faults import __main__ as faults
from tests.faults.attempts import Fault, attempt, draw
from tests.faults.jobs import JOBS, Job

LINE = "half of it is not the whole\n" * 2000


def in_place(world):
    """Trusts what is there, as if it were whole."""
    for i in range(4):
        path = Path(f"{i}.txt")
        if not path.exists():
            with path.open("w") as file:
                for letter in LINE:
                    file.write(letter)


def whole(world):
    for i in range(4):
        if not Path(f"{i}.txt").exists():
            atomic.write_text(f"{i}.txt", LINE)


@pytest.fixture
def trial(tmp_path, monkeypatch):
    def trial(job):
        monkeypatch.setitem(JOBS, "job", Job(job))
        trial = faults.Trial("job", tmp_path, tmp_path)
        trial.undisturbed()
        return trial

    return trial


def test_a_job_that_writes_in_place_loses(trial, capsys):
    job = trial(in_place)
    for seed in range(1, 9):  # when a kill comes depends on the machine, too
        assert job.kill(random.Random(seed), 5) >= 5
        if job.lost:
            break
    assert job.lost and job.lost[0].startswith("job: [Fault(")


def test_a_job_that_writes_whole_files_loses_nothing(trial):
    job = trial(whole)
    assert job.kill(random.Random(1), 5) >= 5
    assert job.lost == [] and job.reruns >= 3


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (Fault(), 0),
        (Fault(event=1), -signal.SIGKILL),
        (Fault(seconds=0.0), -signal.SIGKILL),
        (Fault(bytes=100), -signal.SIGXFSZ),
    ],
)
def test_each_fault_ends_the_process(tmp_path, fault, status):
    work = tmp_path / "work"
    work.mkdir()
    job = partial(in_place, None)
    assert attempt(job, work, tmp_path / "log", fault).status == status
    if fault.bytes:
        assert (work / "0.txt").stat().st_size == 100


def test_faults_are_drawn_by_the_seed():
    whole = {"changes": 9, "seconds": 2.0, "largest": 1000}
    one, other = (
        [draw(random.Random(seed), whole) for _ in range(3)] for seed in (1, 1)
    )
    assert one == other
    rng = random.Random(1)
    drawn = [draw(rng, whole) for _ in range(60)]
    assert all(
        any(getattr(x, kind) is not None for x in drawn) for kind in vars(drawn[0])
    )
