"""--add_lang: what it runs where, and that it looks after the old files."""

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

TEMPLATE = Path(__file__).parents[2] / "egs2/TEMPLATE/asr1"
PYTHON = r"""#!/usr/bin/env bash
# Stands in for Python: notes its arguments, gives facts, leaves what a training leaves.
printf '%q ' "$@" >>calls
echo >>calls
case "$*" in
    *"add_lang facts"*) printf 'langs es ru be\nmole 25\nkd 3\n' ;;
    "- exp"*) echo "{}" ;;
esac
while [ $# -gt 1 ]; do
    [ "$1" != --output_dir ] || mkdir -p "$2"
    shift
done
"""
OLD = "exp/mole/mole.safetensors"


@pytest.fixture
def recipe(tmp_path):
    """A finished run whose files need no reading."""
    for path in TEMPLATE.iterdir():
        (tmp_path / path.name).symlink_to(path)
    shutil.copytree(TEMPLATE.parents[2] / "conf", tmp_path / "conf")
    for root in ("dump", "dump/add_be", "dump/add_be/be"):
        for folder in ("train", "dev", "test"):
            data = tmp_path / root / "raw" / folder
            data.mkdir(parents=True)
            for name in ("utt2num_samples", "text", "utt2lang"):
                (data / name).write_text("a 1\n")
    for file in ("mono/experts/es/adapter_config.json", "vanilla/system.json"):
        (tmp_path / "exp" / file).parent.mkdir(parents=True)
        (tmp_path / "exp" / file).write_text("{}")
    (tmp_path / OLD).parent.mkdir()
    (tmp_path / OLD).write_text("weights")
    (tmp_path / "python").write_text(PYTHON)
    (tmp_path / "python").chmod(0o755)
    for unit in ("wer", "cer"):
        (tmp_path / f"exp/add_be/be/mono/decode_aware/test/score_{unit}").mkdir(
            parents=True
        )
    (tmp_path / "sclite").symlink_to("/bin/true")
    (tmp_path / "local").unlink()
    (tmp_path / "local").mkdir()
    shutil.copy(tmp_path / "python", tmp_path / "local/data.sh")
    return tmp_path


@pytest.fixture
def run(recipe):
    """Adds a language; gives what was asked of Python and of local/data.sh."""

    def run(*options, fails=False):
        (recipe / "calls").write_text("")
        done = subprocess.run(
            ["./lora_experts.sh", "--add_lang", "be", *options],
            cwd=recipe,
            env={
                "python": "./python",
                "PATH": f"{recipe}:/usr/bin:/bin",
                "OMP_NUM_THREADS": "1",  # one training after the other
            },
            text=True,
            capture_output=True,
        )
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        calls = (recipe / "calls").read_text().splitlines()
        return [shlex.split(call) for call in calls], done.stdout + done.stderr

    return run


def options_of(call):
    """Its options; the last value of each."""
    pairs = zip(call, call[1:], strict=False)
    return {name: value for name, value in pairs if name.startswith("--")}


def module_of(call):
    return call[1].rpartition(".")[2] if call[0] == "-m" else call[0]


def test_the_new_language_runs_by_itself_then_both_systems_go_on(run):
    more = ["--distill_args", "--seed 9", "--add_share", "30", "--train_set", "train"]
    calls, said = run("--mole_args", "--model_conf r=9", "--skip_done", "true", *more)
    assert options_of(calls[0])["--share"] == "30"
    train = [call for call in calls if module_of(call) == "train"]
    folders = [options_of(call)["--output_dir"] for call in train]
    assert folders == ["exp/add_be/be/mono", "exp/add_be/kd", "exp/add_be/mole"]
    expert, kd, mole = (" ".join(call) for call in train)
    assert 'languages=["be", ]' in expert and "extend" not in expert
    assert "dump/add_be/be/raw/train/wav.scp" in expert
    for words, name, steps in ((mole, "mole", 25), (kd, "kd", 3)):
        assert 'languages=["es", "ru", "be", ]' in words
        assert f"extend=exp/{name} --max_epoch 1 --num_iters_per_epoch {steps}" in words
        assert "dump/add_be/raw/train/wav.scp" in words
        assert f"--scheduler_conf warmup_steps={-(-steps // 5)}" in words
    assert mole.index("r=9") < mole.index("extend=")
    assert kd.index("--seed 9") < kd.index("extend=")
    assert calls[1] == [
        *("--langs", "be", "--download_dir", "downloads"),
        *("--data_dir", "data/add_be"),
    ]
    [score] = [c for c in calls if module_of(c) == "score" and "--before" in c]
    assert (
        options_of(score).items()
        >= {
            "--before": "exp",
            "--test_sets": "test",
            "--systems": "vanilla mono  mole kd",
            "--skip_missing": "true",
            "--score_case": "lower",
            "--score_punctuation": "remove",
        }.items()
    )
    assert "2 files of the old experts and systems are the same as before" in said


def test_what_does_not_change_is_taken_over(run, recipe):
    calls, _ = run()
    combined = [options_of(c) for c in calls if module_of(c) == "combine"]
    inputs = {x["--output"]: x["--inputs"] for x in combined}
    assert inputs["exp/add_be/mono"] == "exp/mono exp/add_be/be/mono"
    assert (recipe / "exp/add_be/vanilla/system.json").is_file()
    hashes = (recipe / "exp/add_be/before.sha256").read_text()
    own = (recipe / "exp/add_be/be/mono/.done").read_text()
    assert (recipe / "exp/add_be/mono/.done").read_text() == hashes + own
    assert own


def test_a_system_that_is_not_there_is_not_extended(run, recipe):
    facts = PYTHON.replace("mole 25\\nkd 3", "kd 3")
    (recipe / "python").write_text(facts)
    calls, _ = run()
    train = [options_of(c)["--output_dir"] for c in calls if module_of(c) == "train"]
    assert train == ["exp/add_be/be/mono", "exp/add_be/kd"]


def test_only_what_is_new_is_decoded(run):
    """Whatever the finished run was given for its results."""
    given = ["--cross_experts", "true", "--experts", "mono_r_8"]
    calls, _ = run(*given, "--results_dir", "elsewhere")
    decode = [options_of(c) for c in calls if module_of(c) == "decode"]
    rows = [(x["--systems"].split(), x["--data_root"]) for x in decode]
    assert rows == [
        (["vanilla", "mono"], "dump/add_be/be/raw"),
        (["mole", "kd"], "dump/add_be/raw"),
    ]
    joined = [call[-3:] for call in calls if "join" in call]
    assert [
        *("exp/mono/decode_aware/test", "exp/add_be/be/mono/decode_aware/test"),
        "exp/add_be/mono/decode_aware/test",
    ] in joined
    assert len(joined) == 3 + 2
    outputs = [options_of(c)["--output"] for c in calls if module_of(c) == "score"]
    assert outputs and "elsewhere" not in outputs
    assert {c[1] for c in calls if c[0] == "-"} == {"exp/add_be/mono"}
    assert not any("--cross" in c for c in calls)


def test_a_changed_old_file_is_an_error_that_names_it(run, recipe):
    (recipe / "python").write_text(PYTHON + f"echo x >>{OLD}\n")
    _, said = run(fails=True)
    assert f"{OLD}: FAILED" in said


def test_stages_from_the_seventh_leave_the_new_expert(run):
    calls, _ = run("--stop_stage", "6")
    train = [options_of(c)["--output_dir"] for c in calls if module_of(c) == "train"]
    assert train == ["exp/add_be/be/mono"]
    calls, _ = run("--stage", "7")
    train = [options_of(c)["--output_dir"] for c in calls if module_of(c) == "train"]
    assert train == ["exp/add_be/kd", "exp/add_be/mole"]
