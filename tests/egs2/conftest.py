"""Scripts of recipes' local/, which are no packages, and small corpora."""

import importlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def local():
    """Imports a script of a recipe's local/."""

    def load(recipe, name):
        folder = str(ROOT / f"egs2/{recipe}/asr1/local")
        sys.path.insert(0, folder)
        try:
            return importlib.import_module(name)
        finally:
            sys.path.remove(folder)

    return load


@pytest.fixture(scope="session")
def miniatures():
    """The module that makes small corpora."""
    path = Path(__file__).with_name("miniatures.py")
    spec = importlib.util.spec_from_file_location("miniatures", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def prepared(local, tmp_path):
    """Runs a recipe's stage 1 in a folder; gives its three data dirs as tables."""

    def run(recipe, *options):
        cmd = ["--data_dir", tmp_path / "data", "--espnet_root", "none", *options]
        if recipe == "fleurs":
            del cmd[2:4]
        local(recipe, recipe).main([str(word) for word in cmd])
        return {
            split: {
                table: dict(
                    line.split(" ", 1)
                    for line in (tmp_path / "data" / split / table)
                    .read_text("utf-8")
                    .splitlines()
                )
                for table in ("wav.scp", "text", "utt2lang", "utt2spk", "spk2utt")
            }
            for split in ("train", "dev", "test")
        }

    return run
