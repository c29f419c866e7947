"""The launcher runs what Python would, and ESPnet's commands with our parts."""

import importlib
import inspect
import sys
from pkgutil import resolve_name

import pytest

from espnet_lora_experts import run

ECHO = "import sys\nprint(__name__, *sys.argv[1:])\n"


@pytest.fixture(autouse=True)
def process(monkeypatch):
    """Gives back what a launcher changes in its process."""
    monkeypatch.setattr(sys, "argv", [*sys.argv])
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in run.OURS:
        module = importlib.import_module(name)
        for attribute in run.OURS[name]:
            monkeypatch.setattr(module, attribute, getattr(module, attribute))


@pytest.mark.parametrize("how", ["module", "code", "script"])
def test_runs_what_python_runs_with_its_arguments(how, tmp_path, capsys):
    (tmp_path / "echo_arguments.py").write_text(ECHO)
    sys.path.insert(0, str(tmp_path))
    what = {
        "module": ["-m", "echo_arguments"],
        "code": ["-c", ECHO],
        "script": [str(tmp_path / "echo_arguments.py")],
    }
    run.main([*what[how], "-m", "two words", "--c=1"])
    assert capsys.readouterr().out == "__main__ -m two words --c=1\n"


def test_a_script_imports_from_its_own_folder(tmp_path, capsys):
    (tmp_path / "beside.py").write_text("word = 'beside'\n")
    (tmp_path / "script.py").write_text("from beside import word\nprint(word)\n")
    run.main([str(tmp_path / "script.py")])
    assert capsys.readouterr().out == "beside\n"


@pytest.mark.parametrize("name", run.OURS)
def test_each_of_our_parts_takes_the_place_of_one(name):
    module = importlib.import_module(name)
    for attribute, where in run.OURS[name].items():
        theirs, ours = getattr(module, attribute), resolve_name(where)
        if inspect.isclass(theirs):
            assert ours is not theirs and issubclass(ours, theirs)
        else:
            same = inspect.signature(theirs).parameters
            assert [*inspect.signature(ours).parameters] == [*same]


def test_training_is_ours():
    from espnet2.bin import asr_train

    with pytest.raises(SystemExit) as ended:
        run.main(["-m", "espnet2.bin.asr_train", "--print_config"])
    assert not ended.value.code
    assert asr_train.ASRTask is resolve_name(run.OURS[asr_train.__name__]["ASRTask"])


def test_the_vocabulary_is_whole(folder_30s, prompter, tmp_path):
    output = tmp_path / "new/tokens.txt"
    command = ["-m", "espnet2.bin.hugging_face_export_vocabulary"]
    command += ["--model_name_or_path", str(folder_30s), "--output", str(output)]
    run.main(command)
    assert output.read_text("utf-8").splitlines() == prompter.token_list()


def test_without_espnet_the_error_names_the_fix(monkeypatch):
    monkeypatch.setitem(sys.modules, "espnet2", None)
    with pytest.raises(ValueError, match="espnet2 must be installed .*local/setup.sh"):
        run.main(["-m", "espnet2.bin.asr_train"])


@pytest.mark.parametrize("command", [[], ["-m"], ["-c"], ["nothing.py"]])
def test_nothing_to_run_is_an_error(command):
    with pytest.raises(ValueError, match="give -m MODULE, -c CODE or a script"):
        run.main(command)
