"""The recipe in quick mode, run once for all tests that need what it makes."""

import subprocess
from pathlib import Path

import pytest

RECIPE = Path(__file__).parents[2] / "egs2/mini_multilingual/asr1"
MADE = {"exp", "data", "dump", "downloads", "RESULTS.md"}


@pytest.fixture(scope="session")
def run():
    """Runs the recipe as a user would, in a folder and with some options."""

    def run(folder: Path, *options: str) -> subprocess.CompletedProcess:
        command = ["./run.sh", "--quick", "true", *options]
        return subprocess.run(command, cwd=folder, text=True, capture_output=True)

    return run


@pytest.fixture(scope="session")
def recipe(run, tmp_path_factory) -> Path:
    """The recipe's folder, run once in quick mode; downloads are shared."""
    folder = tmp_path_factory.mktemp("asr1")
    for path in RECIPE.iterdir():
        if path.name not in MADE:
            (folder / path.name).symlink_to(path)
    done = run(folder, "--download_dir", str(RECIPE / "downloads"))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder
