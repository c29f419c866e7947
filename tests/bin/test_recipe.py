"""A recipe's copy is complete, free of its origin, and runs."""

import os
import subprocess
import sys

import pytest

from espnet_lora_experts import packaged
from espnet_lora_experts.bin import recipe


@pytest.fixture(params=sorted(packaged.recipes()))
def name(request):
    return request.param


def test_the_copy_has_every_file_and_no_link(name, tmp_path):
    recipe.main([str(tmp_path / "mine"), "--name", name])
    source = packaged.recipes()[name]
    for path in source.rglob("*"):
        first = path.relative_to(source).parts[0]
        if path.is_file() and (first.endswith(".sh") or first in ("conf", "local")):
            if "__pycache__" not in path.parts:
                copied = tmp_path / "mine" / path.relative_to(source)
                assert copied.read_bytes() == path.read_bytes()
    assert {path.name for path in (source / "conf").iterdir()} <= {
        path.name for path in (tmp_path / "mine/conf").iterdir()
    }
    assert not [path for path in (tmp_path / "mine").rglob("*") if path.is_symlink()]


def test_what_is_run_is_executable(tmp_path):
    recipe.main([str(tmp_path / "mine")])
    modes = {
        path.name: os.access(path, os.X_OK) for path in (tmp_path / "mine").glob("*.sh")
    }
    assert modes["run.sh"] and modes["lora_experts.sh"] and modes["run_job.sh"]
    assert not modes["path.sh"] and os.access(tmp_path / "mine/local/data.sh", os.X_OK)


def test_what_a_run_left_is_not_copied(tmp_path):
    source = tmp_path / "asr1"
    for made in ("exp/kd", "data/train", "local/__pycache__", "conf"):
        (source / made).mkdir(parents=True)
        (source / made / "file").write_text("x")
    (source / "RESULTS.md").write_text("x")
    (source / "run.sh").write_text("#!/bin/sh\n")
    recipe.copy(source, tmp_path / "mine")
    mine = tmp_path / "mine"
    made = {str(path.relative_to(mine)) for path in mine.rglob("*")}
    assert made == {"run.sh", "conf", "conf/file", "local", "activate_python.sh"}


@pytest.mark.parametrize("content", [True, False])
def test_nothing_is_overwritten(content, tmp_path):
    (tmp_path / "mine").mkdir()
    if content:
        (tmp_path / "mine/run.sh").write_text("mine")
    with pytest.raises(ValueError, match="mine must be a new folder, but is there"):
        recipe.main([str(tmp_path / "mine")])
    assert len([*(tmp_path / "mine").iterdir()]) == content


def test_an_unknown_recipe_is_named_with_the_known(tmp_path):
    with pytest.raises(ValueError, match=r"--name must be of \[.*'mini_multi.*'no'"):
        recipe.main([str(tmp_path / "mine"), "--name", "no"])
    assert not (tmp_path / "mine").exists()


def python_of(folder, **environment):
    """The Python that path.sh finds, run from elsewhere as well."""
    script = f'set -euo pipefail; . {folder}/path.sh; echo "$python"'
    plain = {"PATH": "/usr/bin:/bin", **environment}
    done = subprocess.run(
        ["bash", "-c", script], env=plain, cwd="/", text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_copy_runs_with_the_python_that_made_it(tmp_path):
    recipe.main([str(tmp_path / "my recipe")])
    (tmp_path / "my recipe").rename(tmp_path / "mine")
    folder = tmp_path / "mine"
    assert python_of(folder) == sys.executable
    assert python_of(folder, VIRTUAL_ENV="/venv") == "/venv/bin/python"
    assert python_of(folder, VIRTUAL_ENV="/venv", python="/mine") == "/mine"
    (folder / "activate_python.sh").unlink()
    assert python_of(folder) == "python3"


def test_the_copy_s_help_runs(tmp_path, capsys):
    recipe.main([str(tmp_path / "mine")])
    assert f"cd {tmp_path}/mine && ./run.sh" in capsys.readouterr().out
    done = subprocess.run(
        ["./run.sh", "--help"], cwd=tmp_path / "mine", text=True, capture_output=True
    )
    assert done.returncode == 0 and "--stop_stage" in done.stdout
