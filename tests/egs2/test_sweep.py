"""sweep.sh: which runs of the recipe a sweep's file becomes."""

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

SWEEP = Path(__file__).parents[2] / "egs2/TEMPLATE/asr1/sweep.sh"
RECORD = '#!/usr/bin/env bash\nprintf "%q " "$@" >>calls; echo >>calls\n'


@pytest.fixture
def sweep(tmp_path):
    """Runs a sweep of some lines; a stand-in for run.sh records its options."""
    shutil.copy(SWEEP, tmp_path)
    (tmp_path / "run.sh").write_text(RECORD)
    (tmp_path / "run.sh").chmod(0o755)

    def run(lines, *options):
        (tmp_path / "depth.txt").write_text(lines)
        command = ["./sweep.sh", "depth.txt", *options]
        done = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True)
        calls = tmp_path / "calls"
        made = calls.read_text().splitlines() if calls.exists() else []
        return done, [_options(shlex.split(call)) for call in made]

    return run


def _options(words):
    """What the recipe takes: the last value of each option."""
    assert all(name.startswith("--") for name in words[::2]), words
    return dict(zip(words[::2], words[1::2], strict=True))


def test_each_line_trains_one_variant_and_the_last_run_compares_them(sweep):
    done, calls = sweep(
        "# which depth?\n\nmole L1_1 --model_conf merged_layers=1\n"
        "kd r_8  --model_conf r=8 --max_epoch 1\nmole L1_2 --model_conf pooling=mean\n"
    )
    assert done.returncode == 0, done.stderr
    *trained, compared = calls
    assert [(x["--stage"], x["--stop_stage"], x["--tag"]) for x in trained] == [
        ("7", "7", "L1_1"),
        ("8", "8", "r_8"),
        ("7", "7", "L1_2"),
    ]
    assert trained[0]["--mole_args"] == "--model_conf merged_layers=1"
    assert trained[1]["--distill_args"] == "--model_conf r=8 --max_epoch 1"
    assert {x["--skip_done"] for x in calls} == {"true"}
    assert compared["--systems"] == "multi mole mole_L1_1 kd kd_r_8 mole_L1_2"
    assert (compared["--stage"], compared["--test_sets"]) == ("9", "dev")
    assert compared["--results_dir"] == "exp/sweeps/depth"


def test_options_of_the_recipe_reach_every_run(sweep):
    options = ["--langs", "cs nl", "--expdir", "exp2", "--valid_set", "my_dev"]
    _, calls = sweep("multi r_8 --model_conf r=8\n", *options)
    assert [x["--langs"] for x in calls] == ["cs nl", "cs nl"]
    assert calls[-1]["--test_sets"] == "my_dev"
    assert calls[-1]["--results_dir"] == "exp2/sweeps/depth"


@pytest.mark.parametrize("line", ["moel L1_1 --model_conf r=1", "mole"])
def test_a_bad_line_is_named_and_nothing_is_compared(sweep, line):
    done, calls = sweep(f"{line}\n")
    assert done.returncode == 2 and not calls
    assert "SYSTEM TAG OPTIONS" in done.stderr and line in done.stderr


def test_a_missing_sweep_and_help_say_what_there_is(tmp_path):
    def run(*options):
        return subprocess.run([SWEEP, *options], text=True, capture_output=True)

    assert "no sweep at none.txt" in run("none.txt").stderr
    assert "SYSTEM TAG OPTIONS" in run("--help").stdout
    assert "conf/sweeps/" in run().stdout
