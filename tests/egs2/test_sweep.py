"""sweep.sh and run_ablations.sh: which runs of the recipe sweeps become."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

EGS2 = Path(__file__).parents[2] / "egs2"
SWEEP = EGS2 / "TEMPLATE/asr1/sweep.sh"
ABLATIONS = EGS2 / "mini_multilingual/asr1/run_ablations.sh"
RECORD = '#!/usr/bin/env bash\ncat\nprintf "%q " "$@" >>calls; echo >>calls\n'
"""Reads what it is given, as a training on another machine may."""
QUIETLY = {"text": True, "capture_output": True, "stdin": subprocess.DEVNULL}
PYTHON = '#!/usr/bin/env bash\necho "python $*"\n'


@pytest.fixture
def sweep(tmp_path):
    """Runs a sweep of some lines; stand-ins for what it calls record their options."""
    for name in ("sweep.sh", "jobs.sh", "shares.sh"):
        shutil.copy(SWEEP.with_name(name), tmp_path)
    (tmp_path / "path.sh").write_text("python=./python\n")
    for name, content in (("run.sh", RECORD), ("python", PYTHON)):
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o755)
    for folder in ("exp/sweeps/depth", "exp2/sweeps/depth"):
        (tmp_path / folder).mkdir(parents=True)

    def run(lines, *options, before=(), threads=1):
        (tmp_path / "depth.txt").write_text(lines)
        command = ["./sweep.sh", *before, "depth.txt", *options]
        env = os.environ | {"OMP_NUM_THREADS": str(threads)}
        done = subprocess.run(command, cwd=tmp_path, env=env, **QUIETLY)
        calls = tmp_path / "calls"
        made = calls.read_text().splitlines() if calls.exists() else []
        made = [shlex.split(call) for call in made]
        return done, [_options(call) for call in made if call[0].startswith("--")]

    return run


def _options(words):
    """What the recipe takes: the last value of each option."""
    assert all(name.startswith("--") for name in words[::2]), words
    return dict(zip(words[::2], words[1::2], strict=True))


def test_each_line_trains_one_variant_and_the_last_run_compares_them(sweep, tmp_path):
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
    assert trained[0]["--mole_args"].split() == ["--model_conf", "merged_layers=1"]
    assert trained[1]["--distill_args"].split()[-2:] == ["--max_epoch", "1"]
    assert {x["--skip_done"] for x in calls} == {"true"}
    for name in ("train_full", "train_kd_logits_only", "cross_experts"):
        assert {x[f"--{name}"] for x in calls} == {"false"}
    assert {x["--experts"] for x in trained} == {"mono"}
    assert compared["--systems"] == "multi mole mole_L1_1 kd kd_r_8 mole_L1_2"
    assert (compared["--stage"], compared["--stop_stage"]) == ("9", "10")
    assert compared["--test_sets"] == "dev"
    assert compared["--results_dir"] == "exp/sweeps/depth"
    assert compared["--baseline"] == "multi mole kd"
    table = "python -m espnet_lora_experts.bin.sweeps depth.txt --expdir exp\n"
    assert done.stdout == table
    assert (tmp_path / "exp/sweeps/depth/TABLE.md").read_text() == table


def test_fusion_and_student_start_from_the_experts_of_their_tag(sweep):
    """Of a line before; of the finished run where the sweep trains none."""
    done, calls = sweep(
        "mole r_4\nmono r_8 --model_conf r=8\nmole r_8  # of rank 8\nkd r_8\nkd r_4\n"
    )
    assert done.returncode == 0, done.stderr
    *trained, compared = calls
    assert [x["--stage"] for x in trained] == ["7", "5", "8", "7", "8"]
    starts = ["mono", "mono", "mono", "mono_r_8", "mono_r_8"]
    assert [x["--experts"] for x in trained] == starts
    assert trained[1]["--expert_args"].split() == ["--model_conf", "r=8"]
    assert trained[3]["--mole_args"].split() == []
    systems = "multi mole mole_r_4 mono mono_r_8 mole_r_8 kd kd_r_8 kd_r_4"
    assert compared["--systems"] == systems


TAKES_TIME = """#!/usr/bin/env bash
name="$* "
name=${name#*--tag } name=${name%% *}
echo "begins ${name} ${OMP_NUM_THREADS}" >>calls
sleep 0.5
[[ " $* " != *" --stage 5 "* ]] || sleep 1
[ "${name}" != bad ] || exit 1
echo "ends ${name} 0" >>calls
"""
"""A training that records its tag and threads; experts take longest."""


def test_variants_train_side_by_side_after_the_experts_they_need(sweep, tmp_path):
    (tmp_path / "run.sh").write_text(TAKES_TIME)
    lines = "kd a --seed 1\nmono b --seed 1\nmole b\nkd c --seed 2\n"
    (tmp_path / "second.txt").write_text("mole d --seed 3\nkd a --seed 1\n")
    (tmp_path / "exp/sweeps/second").mkdir()
    done, _ = sweep(lines, before=["second.txt"], threads=2)
    assert done.returncode == 0, done.stderr
    *calls, _, _, _, _ = [
        call.split() for call in (tmp_path / "calls").read_text().splitlines()
    ]
    trained = [name for what, name, _ in calls if what == "begins"]
    assert sorted(trained) == ["a", "b", "b", "c", "d"]  # both name kd a
    running, most = 0, 0
    for what, _, _ in calls:
        running += 1 if what == "begins" else -1
        most = max(most, running)
    assert most == 2 and {x for what, _, x in calls if what == "begins"} == {"1"}
    assert calls.index(["ends", "b", "0"]) < max(
        i for i, call in enumerate(calls) if call[:2] == ["begins", "b"]
    )


def test_variants_side_by_side_have_gpus_of_their_own(sweep, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    noted = 'echo "${job_place}" >>places; sleep 0.5\n'
    (tmp_path / "run.sh").write_text(f"#!/usr/bin/env bash\n{noted}")
    done, _ = sweep("kd a\nkd b\nkd c\n", "--ngpu", "1")
    assert done.returncode == 0, done.stderr
    *places, _ = (tmp_path / "places").read_text().split("\n")[:4]
    assert sorted(places) == ["0", "1", "2"]


@pytest.mark.parametrize("other", ["kd a --seed 2", "mono a --seed 3\nkd a --seed 1"])
def test_one_name_for_two_variants_is_named_and_trains_nothing(sweep, tmp_path, other):
    (tmp_path / "second.txt").write_text(other)
    done, calls = sweep("kd a --seed 1\n", before=["second.txt"])
    assert done.returncode == 2 and not calls
    assert "kd a must mean one variant, but depth.txt has it" in done.stderr


def test_a_failed_variant_is_named_and_the_others_go_on(sweep, tmp_path):
    (tmp_path / "run.sh").write_text(TAKES_TIME)
    done, _ = sweep("kd bad --seed 1\nkd a --seed 1\nkd b --seed 2\n")
    assert done.returncode == 1 and "failed: exp/kd_bad/train.log" in done.stdout
    calls = (tmp_path / "calls").read_text()
    assert "ends a" in calls and "ends b" in calls and "--stage" not in calls


def test_options_of_the_run_come_before_those_of_the_line(sweep):
    options = ["--mole_args", "--max_epoch 2 --model_conf pooling=mean_std"]
    _, [trained, _] = sweep("mole L1_1 --model_conf pooling=mean\n", *options)
    assert trained["--mole_args"].split() == [
        *("--max_epoch", "2", "--model_conf", "pooling=mean_std"),
        *("--model_conf", "pooling=mean"),
    ]


def test_one_word_is_compared_only(sweep, tmp_path):
    for name in ("mole", "two_pass"):
        (tmp_path / "exp" / name).mkdir()
        (tmp_path / "exp" / name / "system.json").write_text("{}")
    _, calls = sweep("mole@top2  # two of them\ntwo_pass@mole\n")
    [compared] = calls
    assert compared["--systems"] == "multi mole mole@top2 two_pass two_pass@mole"
    assert compared["--baseline"] == "multi mole two_pass"


def test_variants_of_the_pooled_lora_are_baselines(sweep):
    """Of the experts that saw as much."""
    _, calls = sweep(
        "multi n_9 --sampler_conf most_per_language=9\nmono n_9 --seed 1\n"
    )
    assert [x["--stage"] for x in calls[:-1]] == ["6", "5"]
    assert calls[-1]["--baseline"] == "multi multi_n_9 mono"


def test_other_sets_to_compare_on(sweep):
    _, calls = sweep("mole a --seed 1\n", before=["--on", "one two"])
    assert calls[-1]["--test_sets"] == "one two"
    assert "--test_sets" not in calls[0]


def test_options_of_the_recipe_reach_every_run(sweep):
    options = ["--langs", "cs nl", "--expdir", "exp2", "--valid_set", "my_dev"]
    _, calls = sweep("multi r_8 --model_conf r=8\n", *options)
    assert [x["--langs"] for x in calls] == ["cs nl", "cs nl"]
    assert calls[-1]["--test_sets"] == "my_dev"
    assert calls[-1]["--results_dir"] == "exp2/sweeps/depth"


@pytest.mark.parametrize(
    "line", ["moel L1_1 --model_conf r=1", "mole@top2", "moel", "mole"]
)
def test_a_bad_line_is_named_and_nothing_is_compared(sweep, line):
    done, calls = sweep(f"{line}\n")
    assert done.returncode == 2 and not calls
    assert "SYSTEM TAG OPTIONS" in done.stderr and line in done.stderr


def test_a_missing_sweep_and_help_say_what_there_is(tmp_path):
    def run(*options):
        return subprocess.run([SWEEP, *options], text=True, capture_output=True)

    missing = run("none.txt")
    assert missing.returncode == 2 and "no sweep at none.txt" in missing.stderr
    assert "SYSTEM TAG OPTIONS" in run("--help").stdout
    assert "conf/sweeps/" in run().stdout


@pytest.fixture
def ablations(tmp_path):
    """Runs run_ablations.sh; stand-ins for all that it calls record their options."""
    recipe = tmp_path / "recipe"
    (recipe / "local").mkdir(parents=True)
    shutil.copy(ABLATIONS, recipe)
    shutil.copytree(EGS2.parent / "conf/sweeps", recipe / "conf/sweeps")
    (recipe / "path.sh").write_text("python=./python\n")
    (recipe / "db.sh").write_text("MINI_MULTILINGUAL=downloads\n")
    for name in ("run.sh", "sweep.sh", "local/data.sh", "python"):
        own = RECORD.replace('"$@"', f'{name} "$@"')
        (recipe / name).write_text(PYTHON if name == "python" else own)
        (recipe / name).chmod(0o755)

    def run(*options):
        command = [recipe / "run_ablations.sh", *options]
        done = subprocess.run(command, cwd=tmp_path, **QUIETLY)
        calls = recipe / "calls"
        made = calls.read_text().splitlines() if calls.exists() else []
        calls.unlink(missing_ok=True)
        return done, made

    run.recipe = recipe
    return run


def test_ablations_train_what_is_missing_then_run_all_sweeps(ablations):
    places = ["--dumpdir", "dump2", "--download_dir", "there"]
    done, made = ablations("--langs", "cs nl", "--expdir", "exp2", *places)
    assert done.returncode == 0, done.stderr
    run, data, sweep = made
    assert run.startswith("run.sh ") and "--stop_stage 8 --skip_done true" in run
    assert data.startswith("local/data.sh ") and "cs\\ nl" in data
    assert "--download_dir there" in data and "--max_dev" not in data
    assert "/dev --out_dirs dump2/raw/dev_whole --langs cs nl\n" in done.stdout
    files = sorted(x.name for x in (ablations.recipe / "conf/sweeps").iterdir())
    given = [f"conf/sweeps/{name}" for name in files]
    assert len(files) > 10 and f"--on dev_whole {' '.join(given)} --" in sweep
    assert "cs\\ nl" in sweep and "exp2" in sweep
    tables = (ablations.recipe / "exp2/sweeps/TABLES.md").read_text()
    assert tables in done.stdout and "bin.sweeps conf/sweeps/alpha.txt" in tables


def test_ablations_take_what_is_there_and_run_what_is_named(ablations):
    for name in ("mono", "multi", "mole", "kd"):
        (ablations.recipe / "exp" / name).mkdir(parents=True)
        (ablations.recipe / "exp" / name / "system.json").write_text("{}")
    (ablations.recipe / "dump/raw/dev_whole").mkdir(parents=True)
    (ablations.recipe / "dump/raw/dev_whole/text").write_text("")
    _, made = ablations("--sweeps", "top_k alpha")
    [sweep] = made
    assert sweep.split()[3:5] == ["conf/sweeps/top_k.txt", "conf/sweeps/alpha.txt"]
    assert ablations("--tables", "true")[1] == []


def test_ablations_explain_themselves_and_refuse_what_they_do_not_know(ablations):
    done, made = ablations("--help")
    assert done.returncode == 0 and "--sweeps" in done.stdout and not made
    done, made = ablations("--sweeps", "depth")
    assert done.returncode == 2 and "there are: alpha data" in done.stderr and not made
    done, made = ablations("depth")
    assert done.returncode == 2 and "but got depth" in done.stderr and not made
