"""What the command lines share: defaults of a YAML, and errors without tracebacks."""

import argparse
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

from espnet_lora_experts import bin as commands
from espnet_lora_experts.bin import cli

PARTS = {"app_page", "cli", "dump", "tasks"}  # of commands
NAMES = [m.name for m in pkgutil.iter_modules(commands.__path__) if m.name not in PARTS]


@pytest.fixture
def parse(tmp_path):
    """Parses options, with the text of a YAML where there is one."""

    def parse(*options, config=None):
        parser = argparse.ArgumentParser()
        parser.add_argument("--systems", required=True)
        parser.add_argument("--nj", type=int, default=1)
        parser.add_argument("--penalty", type=float, default=1.0)
        parser.add_argument("--most", type=int)
        parser.add_argument("--expdir", type=Path, default="exp")
        parser.add_argument("--autocast", choices=("none", "half"), default="none")
        parser.add_argument("--cross", action="store_true")
        if config is not None:
            (tmp_path / "c.yaml").write_text(config, encoding="utf-8")
            options = ["--config", str(tmp_path / "c.yaml"), *options]
        args = vars(cli.parse(parser, options))
        args.pop("config")
        return args

    return parse


DEFAULTS = {"nj": 1, "penalty": 1.0, "most": None, "expdir": Path("exp")}
DEFAULTS |= {"systems": "kd", "autocast": "none", "cross": False}


def test_without_a_yaml_the_defaults_stay(parse):
    assert parse("--systems", "kd") == DEFAULTS
    assert parse("--systems", "kd", config="# nothing\n") == DEFAULTS


def test_a_yaml_gives_other_defaults_in_the_option_s_type(parse):
    yaml = "systems: mono multi\nnj: 3\npenalty: 2\nexpdir: there\nmost:\n"
    args = parse(config=yaml + "autocast: half\ncross: true\n")
    others = {"nj": 3, "penalty": 2.0, "most": None, "expdir": Path("there")}
    others |= {"systems": "mono multi", "autocast": "half", "cross": True}
    assert args == others
    assert {key: type(value) for key, value in args.items()} == {
        key: type(value) for key, value in others.items()
    }


def test_the_command_line_wins_over_the_yaml(parse):
    args = parse("--nj", "5", "--systems", "kd", config="nj: 3\nsystems: mono\n")
    assert args == DEFAULTS | {"nj": 5}


@pytest.mark.parametrize(
    "config, message",
    [
        ("n_j: 2\n1: 2", r"c.yaml must have options of .*'nj'.*, but got \['1', 'n_j'"),
        ("help: 1", r"but got \['help'\]"),
        ("autocast: quarter", r"c.yaml: autocast must be one of .*, but got 'quarter'"),
        ("cross: maybe", r"c.yaml: cross must be one of \[True, False\], but got 'may"),
        ("systems: no", "c.yaml: systems must be text, but got False; quote it"),
        ("- nj", "c.yaml must be .* a list instead of lines 'option: value'"),
        ("nj: [", "c.yaml must be YAML .*, but got: ParserError: while parsing"),
    ],
)
def test_a_yaml_that_does_not_fit_is_refused(parse, config, message):
    with pytest.raises(ValueError, match=message) as error:
        parse("--systems", "kd", config=config)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("config", ["nj: two", "nj: 2.5", "nj: true", "penalty: x"])
def test_a_value_of_another_type_is_refused(parse, config, capsys):
    with pytest.raises(SystemExit):
        parse("--systems", "kd", config=config)
    assert f"argument --{config.split(':')[0]}: invalid" in capsys.readouterr().err


def test_a_yaml_that_is_missing_is_named(parse, tmp_path):
    for path in (tmp_path, tmp_path / "no.yaml"):
        with pytest.raises(ValueError, match=f"must be a YAML file, but got {path}"):
            parse("--config", str(path))


def test_what_is_required_stays_required(parse, capsys):
    with pytest.raises(SystemExit):
        parse(config="nj: 2")
    assert "the following arguments are required: --systems" in capsys.readouterr().err


@pytest.mark.parametrize("kind", [ValueError, FileNotFoundError])
def test_an_error_of_input_is_its_message(kind):
    def main():
        raise kind("--nj must be 1 or more, but got 0")

    with pytest.raises(SystemExit) as ended:
        cli.run(main)
    assert ended.value.code == "error: --nj must be 1 or more, but got 0"


def test_an_error_of_ours_keeps_its_traceback():
    def main():
        raise KeyError("es")

    with pytest.raises(KeyError):
        cli.run(main)


def test_a_good_end_is_silent():
    done = []
    cli.run(lambda: done.append(1))
    assert done == [1]


def test_a_command_that_fails_has_status_1_and_one_line(tmp_path):
    module = f"{commands.__name__}.combine"
    options = ["--inputs", str(tmp_path / "nothing"), "--output", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", module, *options], text=True, capture_output=True
    )
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert line.startswith(f"error: {tmp_path}/nothing must be a system's folder")


@pytest.mark.parametrize("name", NAMES)
def test_every_command_has_help(name, capsys):
    """Which fails where a help text has a lone percent sign."""
    module = importlib.import_module(f"{commands.__name__}.{name}")
    with pytest.raises(SystemExit) as ended:
        module.main(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    actions = module.get_parser()._actions
    commands_of = [a.choices for a in actions if isinstance(a.choices, dict)]
    options = [x for a in actions for x in a.option_strings]
    options += [name for choices in commands_of for name in choices]
    assert len(options) >= 3 and [x for x in options if x not in shown] == []
