"""lora_experts.sh: what it asks Python to do, and what it leaves, resumes or keeps."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from espnet_lora_experts.plugin.task import LoraExpertsTask

ROOT = Path(__file__).parents[2]
PYTHON = r"""#!/usr/bin/env bash
# Stands in for Python: notes its arguments, leaves what a training leaves.
printf '%q ' "$@" >>calls
echo >>calls
while [ $# -gt 1 ]; do
    if [ "$1" = --output_dir ]; then
        mkdir -p "$2"
        echo "$2" >"$2/checkpoint.pth"
    fi
    shift
done
"""


@pytest.fixture
def recipe(tmp_path):
    """A recipe's folder with data that need no reading."""
    for path in (ROOT / "egs2/TEMPLATE/asr1").iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "conf").symlink_to(ROOT / "conf")
    for folder in ("train", "dev", "test"):
        data = tmp_path / "dump/raw" / folder
        data.mkdir(parents=True)
        for name in ("utt2num_samples", "text", "utt2lang"):
            (data / name).write_text("a 1\n")
    (tmp_path / "python").write_text(PYTHON)
    (tmp_path / "python").chmod(0o755)
    return tmp_path


@pytest.fixture
def run(recipe):
    """Runs one stage; gives what Python was asked to do."""

    def run(stage, *options, python="./python", fails=False):
        (recipe / "calls").write_text("")
        command = ["./lora_experts.sh", "--stage", str(stage), "--stop_stage"]
        done = subprocess.run(
            [*command, str(stage), *options],
            cwd=recipe,
            env={"python": python, "PATH": "/usr/bin:/bin"},
            text=True,
            capture_output=True,
        )
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        calls = (recipe / "calls").read_text().splitlines()
        return [shlex.split(call) for call in calls], done.stdout + done.stderr

    return run


def trained(calls):
    """Folders that were trained."""
    return [
        call[call.index("--output_dir") + 1] for call in calls if "--output_dir" in call
    ]


def test_every_code_stays_a_string(run):
    """YAML alone reads no, Norwegian, as false."""
    [*_, call], _ = run(4, "--langs", "no sv")
    assert call[:2] == ["-m", "espnet_lora_experts.bin.train"]
    args = LoraExpertsTask.get_parser().parse_args(call[2:])
    assert args.model_conf["languages"] == ["no", "sv"]


def test_same_options_resume_and_finished_work_is_left(run, recipe):
    run(5)
    assert trained(run(5)[0]) == ["exp/mono"]
    assert "left as it is" in run(5, "--skip_done", "true")[1]
    assert trained(run(5, "--skip_done", "true")[0]) == []
    assert not (recipe / "exp/replaced").exists()


@pytest.mark.parametrize("option", ["--max_epoch 9", "--log_interval 1"])
def test_a_longer_training_goes_on(run, recipe, option):
    run(5)
    options = ("--expert_args", option, "--skip_done", "true")
    assert trained(run(5, *options)[0]) == ["exp/mono"]
    assert not (recipe / "exp/replaced").exists()


@pytest.mark.parametrize("change", ["langs", "options", "text", "config"])
def test_another_training_starts_anew_and_keeps_the_old(run, recipe, change):
    run(5)
    options = []
    if change == "langs":
        options = ["--langs", "cs nl"]
    elif change == "options":
        options = ["--expert_args", "--model_conf r=8"]
    elif change == "text":
        (recipe / "dump/raw/train/text").write_text("a 2\n")
    else:
        (recipe / "own.yaml").write_text("model: lora_expert\nmax_epoch: 4\n")
        options = ["--expert_config", "own.yaml"]
    calls, said = run(5, *options)
    assert trained(calls) == ["exp/mono"]
    [kept] = (recipe / "exp/replaced").iterdir()
    assert (kept / "checkpoint.pth").exists() and f"replaced/{kept.name}" in said


def test_new_experts_make_their_student_another_training(run, recipe):
    run(5)
    (recipe / "exp/mono/system.json").write_text('{"experts": {}}')
    run(8)
    run(5, "--expert_args", "--model_conf r=8")
    (recipe / "exp/mono/system.json").write_text('{"experts": {}}')
    run(8)
    names = {path.name.split(".")[0] for path in (recipe / "exp/replaced").iterdir()}
    assert names == {"mono", "kd"}


def test_variants_lie_beside_and_start_from_the_experts_named(run, recipe):
    calls, _ = run(5, "--tag", "r_8")
    assert trained(calls) == ["exp/mono_r_8"]
    combined = calls[-1]
    assert combined[combined.index("--output") + 1] == "exp/mono_r_8"
    assert combined[combined.index("--two_pass") + 1] == "exp/two_pass_r_8"
    each, _ = run(5, "--tag", "r_8", "--joint_experts", "false", "--langs", "cs nl")
    assert trained(each) == ["exp/mono_r_8_cs", "exp/mono_r_8_nl"]
    calls, _ = run(7, "--tag", "r_8", "--experts", "mono_r_8")
    assert trained(calls) == ["exp/mole_r_8"] and calls[0] == ["-", "exp/mono_r_8"]


def test_another_variant_of_the_experts_leaves_their_student_finished(run):
    run(5)
    run(8)
    run(5, "--tag", "r_8", "--expert_args", "--model_conf r=8")
    assert trained(run(8, "--skip_done", "true")[0]) == []


def test_several_gpus_are_several_processes(run):
    assert "--multiprocessing_distributed" not in run(5, "--ngpu", "1")[0][0]
    assert "--multiprocessing_distributed" in run(5, "--ngpu", "2")[0][0]


@pytest.mark.parametrize("stage", [7, 8])
def test_fusion_without_experts_says_what_is_missing(run, stage):
    calls, said = run(stage, python=sys.executable, fails=True)
    assert not calls and "exp/mono must be a system's folder" in said


def test_padded_systems_are_decoded_beside_the_natural_ones(run, recipe):
    (recipe / "exp/kd").mkdir(parents=True)
    (recipe / "exp/kd/system.json").write_text("{}")
    [call], _ = run(9, "--padded", "kd")
    assert call[call.index("--systems") + 1].split() == ["kd", "kd@30s"]


def test_all_variants_of_a_tag_are_decoded_beside_the_first(run, recipe):
    for name in ("mono", "mono_a", "two_pass", "two_pass_a", "kd_a"):
        (recipe / "exp" / name).mkdir(parents=True)
        (recipe / "exp" / name / "system.json").write_text("{}")
    [call], _ = run(9, "--tag", "a")
    systems = call[call.index("--systems") + 1].split()
    assert systems == ["mono", "mono_a", "two_pass", "two_pass_a", "kd_a"]


def test_the_baselines_are_an_option(run, recipe):
    for folder in ("score_wer", "score_cer"):  # for sclite, where it is there
        path = recipe / "exp/kd/decode_aware/test" / folder
        path.mkdir(parents=True)
        for name in ("ref.trn", "hyp.trn"):
            (path / name).write_text("uno (a-1)\n")
    [call], _ = run(10, "--systems", "kd", "--baseline", "multi kd")
    assert call[call.index("--baseline") + 1] == "multi kd"
