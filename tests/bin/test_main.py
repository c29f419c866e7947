"""One script for all commands: it teaches, finds them, and stays quick."""

import importlib
import json
import subprocess
import sys

import pytest
import yaml

from espnet_lora_experts import __version__, packaged
from espnet_lora_experts.bin import main as script
from espnet_lora_experts.bin.main import COMMANDS, PROG, main

ROOM = "espnet_lora_experts.bin"


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs a command line; its status, output and errors."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", [PROG])
        try:
            main(words)
            status = 0
        except SystemExit as ended:
            status = ended.code
        return status, *capsys.readouterr()

    return run


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_s_help_is_its_module_s(run, name):
    status, shown, _ = run(name, "--help")
    assert status == 0 and shown.split()[:3] == ["usage:", PROG, name]
    module = importlib.import_module(f"{ROOM}.{COMMANDS[name].module}")
    for action in module.get_parser()._actions:
        assert all(option in shown for option in action.option_strings)


@pytest.mark.parametrize("words", [(), ("--help",)])
def test_the_help_has_every_command_and_examples(run, words):
    status, shown, _ = run(*words)
    assert status == 0
    for name, command in COMMANDS.items():
        assert f"  {name} " in shown and command.about in shown
    _, _, examples = shown.partition("examples:\n")
    used = [line.split()[1] for line in examples.strip().splitlines()]
    assert len(used) >= 5 and set(used) - {"COMMAND"} <= set(COMMANDS)


def test_the_help_imports_nothing_heavy():
    program = (
        "import sys; from espnet_lora_experts.bin.main import main\n"
        "try: main(['--help'])\n"
        "finally: print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], text=True, stderr=-1)
    imported = set(done.stderr.split())
    assert done.returncode == 0 and "argparse" in imported
    assert not imported & {"torch", "numpy", "transformers", "peft", "espnet2"}


def test_the_version_is_the_package_s(run):
    assert run("--version")[:2] == (0, f"{PROG} {__version__}\n")


@pytest.mark.parametrize(
    "typed, hint",
    [
        ("transcibe", "did you mean transcribe?"),
        ("train_expert", "did you mean train-expert?"),
        ("xyz", f"known: {', '.join(COMMANDS)}"),
    ],
)
def test_an_unknown_command_gets_the_nearest(run, typed, hint):
    status, shown, said = run(typed, "--help")
    assert (status, shown) == (2, "")
    assert said.startswith("error: ") and repr(typed) in said
    assert said.endswith(f"{hint}\n")


def test_an_error_of_input_is_a_line(run, tmp_path):
    status, *_ = run("inspect", str(tmp_path / "nothing"))
    assert status.startswith(f"error: {tmp_path}/nothing must be a folder or a file")


def test_a_library_that_is_missing_is_named_with_its_extra(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "typeguard", None)
    monkeypatch.delitem(sys.modules, f"{ROOM}.train", raising=False)
    status, *_ = run("distill", "--help")
    assert "distill needs the package typeguard" in status
    assert "pip install 'espnet_lora_experts[espnet]'" in status


def test_who_stops_reading_ends_the_command_in_silence(whisper_folder):
    command = [sys.executable, "-m", f"{ROOM}.main", "inspect", str(whisper_folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    said = process.stderr.read().decode()
    assert (process.wait(), said) == (141, "")


@pytest.fixture
def options(folder_30s, prompter, tmp_path):
    """What a training without data needs besides its configuration."""
    tokens = tmp_path / "tokens.txt"
    tokens.write_text("\n".join(prompter.token_list()) + "\n", encoding="utf-8")
    cmd = ["--dry_run", "true", "--backbone", str(folder_30s), "--ngpu", "0"]
    cmd += ["--token_list", str(tokens), "--output_dir", str(tmp_path / "exp")]
    return [*cmd, "--model_conf", 'languages=["es","ru"]']


def trained_with(options):
    folder = options[options.index("--output_dir") + 1]
    with open(f"{folder}/config.yaml", encoding="utf-8") as file:
        return yaml.safe_load(file)


def test_a_training_takes_the_packaged_configuration(run, options):
    status, *_ = run("train-expert", *options)
    packaged_yaml = yaml.safe_load(packaged.config("train_expert.yaml").read_text())
    assert status == 0 and packaged_yaml["batch_bins"] > 0
    used = trained_with(options)
    for key in ("model", "batch_bins", "optim_conf", "max_epoch"):
        assert used[key] == packaged_yaml[key], key


def test_a_training_takes_the_user_s_configuration_alone(run, options, tmp_path):
    own = yaml.safe_load(packaged.config("train_expert.yaml").read_text())
    own["batch_bins"], max_epoch = 1234, own.pop("max_epoch")
    (tmp_path / "own.yaml").write_text(json.dumps(own))
    assert run("train-expert", f"--config={tmp_path}/own.yaml", *options)[0] == 0
    used = trained_with(options)
    assert used["batch_bins"] == 1234 and used["max_epoch"] != max_epoch


def test_every_configuration_of_the_table_is_there():
    wanted = [c.config for c in COMMANDS.values() if c.config]
    assert len(wanted) == 3
    assert all(packaged.config(name).is_file() for name in wanted)
    assert script.TABLE["train"]["train-mole"].config == "train_mole.yaml"
