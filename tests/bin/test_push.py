"""The command that uploads: what it lists, and how it ends on bad input."""

import json
import subprocess
import sys

import pytest

from espnet_lora_experts.bin import push
from espnet_lora_experts.whisper.folder import save_system
from espnet_lora_experts.whisper.systems import Experts


@pytest.fixture
def folder(trio, tmp_path):
    save_system(tmp_path / "exp" / "mono", trio, Experts(["es", "ru"]))
    (tmp_path / "exp" / "mono" / "checkpoint.pth").write_text("")
    return tmp_path / "exp" / "mono"


def test_a_dry_run_lists_what_would_go_up(folder, capsys):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    push.main([str(folder), "me/mono", "--dry_run"])
    *lines, total = capsys.readouterr().out.splitlines()
    adapter = ("README.md", "adapter_config.json", "adapter_model.safetensors")
    assert [line.split()[-1] for line in lines] == [
        "me/mono/README.md",
        *(f"me/mono/experts/es/{name}" for name in adapter),
        *(f"me/mono/experts/ru/{name}" for name in adapter),
        "me/mono/system.json",
    ]
    assert total.endswith("  8 files; nothing was sent")
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.parametrize("inside", ["", "experts/es"])
def test_results_lie_beside_the_system(folder, inside):
    assert push.read_results(folder / inside, None) is None
    (folder.parent / "results.json").write_text(json.dumps({"systems": {}}))
    assert push.read_results(folder / inside, None) == {"systems": {}}
    with pytest.raises(ValueError, match="--results must be a file, but got none.json"):
        push.read_results(folder, push.Path("none.json"))


def test_a_folder_that_is_no_model_ends_with_one_line(tmp_path):
    module = "espnet_lora_experts.bin.push"
    command = [sys.executable, "-m", module, str(tmp_path), "me/mono", "--dry_run"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        f"error: {tmp_path} must be a system's folder, but has no system.json"
    )
    assert "Traceback" not in done.stderr
