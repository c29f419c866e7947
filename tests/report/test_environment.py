"""What a page says about its making: versions, commit, commands, no absolute path."""

import doctest
import os
import platform
import shlex

import pytest
import torch

from espnet_lora_experts.report import environment

ARGUMENTS = ["--systems", " multi kd", "--about", "a=b c=d", "--tag", "", "l'eau"]


def test_command_is_what_a_shell_would_run():
    command = environment.describe("package.module", ARGUMENTS)["command"]
    assert shlex.split(command) == ["python", "-m", "package.module", *ARGUMENTS]


def test_recipe_command_stands_before_the_scoring_command():
    plain = environment.describe("m", ["--seed", "1"])
    told = environment.describe("m", ["--seed", "1"], run=r"./run.sh --langs es\ fr")
    assert list(told)[-2:] == ["run", "command"]
    assert told.pop("run") == r"./run.sh --langs es\ fr"
    assert [*told] == [*plain]
    assert told["command"] == plain["command"]


def test_recipe_command_is_one_line():
    assert environment.describe("m", [], run="./run.sh \n --nj 2\n")["run"] == (
        "./run.sh --nj 2"
    )
    assert "run" not in environment.describe("m", [], run=" \n")


def test_versions_are_those_that_run():
    about = environment.describe("m", [])
    build = torch.__version__  # 2.13.0+cu130; not every build tells pip of its kind
    assert about["torch"] in (build, build.partition("+")[0])
    assert about["python"] == platform.python_version()


def test_what_is_not_installed_is_left_out(monkeypatch):
    assert environment.installed("no-such-package") == ""
    monkeypatch.setattr(environment, "_PACKAGES", ("torch", "no-such-package"))
    about = environment.describe("m", [])
    assert "torch" in about
    assert "no-such-package" not in about


def test_no_commit_is_unknown(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert environment.git_hash() == "unknown"


@pytest.mark.parametrize(
    "form",
    [
        "{}",
        "--expdir {}",
        "--expdir={}",
        "--about 'backbone={} text_policy=raw'",
        '--langs es\\ fr --args "--init {}" --nj 1',
        "--model_conf 'experts={{es: {}, fr: {}}}'",
        "--inputs [{},{}] {}",
        "{{es:{}}}",
    ],
)
def test_absolute_paths_become_relative_wherever_they_stand(
    form, tmp_path, monkeypatch
):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    paths = {
        tmp_path / "here/exp/kd": "exp/kd",
        tmp_path / "here": ".",
        tmp_path / "elsewhere/x": "x",
        tmp_path: tmp_path.name,
    }
    for path, short in paths.items():
        said = environment.relative(form.format(*[path] * 3))
        assert said == form.format(*[short] * 3)
    about = environment.describe("m", [str(tmp_path)], run=form.format(*[tmp_path] * 3))
    assert not [value for value in about.values() if str(tmp_path) in value]


@pytest.mark.parametrize(
    "text",
    [
        "--backbone openai/whisper-tiny --conf conf/a.yaml ../b ./c",
        "https://example.org/a --url=http://example.org/b?c=d",
        "a / b",
        "",
        os.sep,
    ],
)
def test_all_else_stays(text):
    assert environment.relative(text) == text


def test_examples():
    assert doctest.testmod(environment).failed == 0
