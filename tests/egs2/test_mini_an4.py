"""mini_an4's launcher and local/espnet.sh: what is missing is named, with the fix."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "egs2/mini_an4/asr1"


def run(*command, **more):
    environment = {**os.environ, "python": sys.executable, "ESPNET_ROOT": "", **more}
    done = subprocess.run(
        [str(part) for part in command], env=environment, text=True, capture_output=True
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def tree(tmp_path):
    """What the launcher looks for in ESPnet's tree."""
    recipe = tmp_path / "egs2/mini_an4/asr1"
    recipe.mkdir(parents=True)
    for name in ("asr.sh", "downloads.tar.gz"):
        (recipe / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (None, "--espnet_root must name ESPnet's source tree, but is not given"),
        ("nothing", "nothing is no folder"),
        ("", "has no egs2 (an installed espnet has none)"),
        ("egs2", "must have the recipe egs2/mini_an4/asr1 with asr.sh"),
    ],
)
def test_what_is_no_tree_is_named_and_how_to_get_one(tmp_path, make, message):
    (tmp_path / "egs2" if make == "egs2" else tmp_path).mkdir(exist_ok=True)
    root = tmp_path / "nothing" if make == "nothing" else tmp_path
    options = [] if make is None else ["--espnet_root", root]
    code, said = run(HERE / "run.sh", *options)
    assert code == 1 and said.startswith("error: ") and message in said
    assert "bash local/espnet.sh fetches one" in said


@pytest.mark.parametrize(("tool", "package"), [("perl", "perl"), ("sclite", "sctk")])
def test_a_missing_tool_is_named_with_its_package(tree, tmp_path, tool, package):
    """On a PATH without it, and without the folder that path.sh adds."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in {"bash", "dirname", "perl"} - {tool}:
        (tools / name).symlink_to(f"/usr/bin/{name}")
    (tmp_path / "run.sh").write_text((HERE / "run.sh").read_text())
    (tmp_path / "path.sh").touch()
    command = ["/bin/bash", tmp_path / "run.sh", "--espnet_root", tree]
    code, said = run(*command, PATH=str(tools))
    assert code == 1 and f"{tool} must be installed" in said
    assert f"apt-get install {package}" in said


def test_a_folder_that_is_no_tree_is_not_unpacked_into(tmp_path):
    (tmp_path / "mine").write_text("kept")
    code, said = run(ROOT / "local/espnet.sh", tmp_path)
    assert code == 1 and f"{tmp_path} must not exist yet" in said
    assert [x.name for x in tmp_path.iterdir()] == ["mine"]


def test_sphere_files_become_wav(tmp_path):
    """As Kaldi's sph2pipe makes them of AN4's files."""
    samples = (np.arange(-50, 50) * 300).astype(np.int16)
    soundfile.write(tmp_path / "a.sph", samples, 16_000, format="NIST")
    command = [sys.executable, HERE / "local/sph2pipe", "-f", "wav", "-p", "-c", "1"]
    done = subprocess.run([*command, tmp_path / "a.sph"], capture_output=True)
    (tmp_path / "a.wav").write_bytes(done.stdout)
    got, rate = soundfile.read(tmp_path / "a.wav", dtype="int16")
    assert rate == 16_000 and got.tolist() == samples.tolist()


def test_other_options_of_sph2pipe_are_refused(tmp_path):
    code, said = run(sys.executable, HERE / "local/sph2pipe", "-p", "a.sph")
    assert code == 1 and "options must be -f wav -p -c 1 FILE" in said
