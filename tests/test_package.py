"""What a distribution of the package carries, and that its files agree."""

import ast
import importlib.util
import os
import subprocess
from pathlib import Path

import pytest
import yaml

from espnet_lora_experts import __version__, packaged
from espnet_lora_experts.bin import main

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def setup():
    """The module setup.py, which imports nothing but the standard library."""
    spec = importlib.util.spec_from_file_location("setup", ROOT / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_recipes_and_configurations_are_shared_without_links(setup):
    names = {str(path.relative_to(ROOT)) for path in setup.shared_files()}
    template = "egs2/TEMPLATE/asr1/lora_experts.sh"
    assert {template, "conf/train_mole.yaml", "CHANGELOG.md", "CITATION.cff"} <= names
    for name, folder in packaged.recipes().items():
        recipe = f"egs2/{name}/asr1"
        assert {f"{recipe}/run.sh", f"{recipe}/path.sh"} <= names
        for yaml_file in (folder / "conf").glob("*.yaml"):
            assert f"{recipe}/conf/{yaml_file.name}" in names
    assert all((ROOT / name).is_file() for name in names)


def git(folder, *words):
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", *words]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)


@pytest.fixture
def tree(setup, tmp_path, monkeypatch):
    """A small project with a link to a folder, and what a run leaves behind."""
    monkeypatch.setattr(setup, "ROOT", tmp_path)
    for name in ("conf/a.yaml", "conf/sweeps/b.txt", "egs2/x/asr1/run.sh"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "egs2/x/asr1/conf").symlink_to("../../../conf")
    (tmp_path / "egs2/x/asr1/cmd.sh").symlink_to("run.sh")
    (tmp_path / "CHANGELOG.md").write_text("news")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    for name in ("egs2/x/asr1/exp/kd/3epoch.pth", "egs2/x/asr1/data/train/text"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("made by a run")
    return tmp_path


SHARED = {
    *("CHANGELOG.md", "conf/a.yaml", "conf/sweeps/b.txt"),
    *("egs2/x/asr1/run.sh", "egs2/x/asr1/cmd.sh"),
    *("egs2/x/asr1/conf/a.yaml", "egs2/x/asr1/conf/sweeps/b.txt"),
}


def shared(setup, tree):
    return [str(path.relative_to(tree)) for path in setup.shared_files()]


def test_a_checkout_shares_what_git_tracks(setup, tree):
    (tree / "conf/mine.yaml").write_text("not added")
    assert sorted(shared(setup, tree)) == sorted(SHARED)


def test_without_git_what_a_run_made_is_left_out(setup, tree):
    os.rename(tree / ".git", tree / "no_git")
    assert sorted(shared(setup, tree)) == sorted(SHARED)


def test_nothing_is_packaged_where_nothing_is(tmp_path, monkeypatch):
    monkeypatch.setattr(packaged, "PACKAGE", tmp_path / "package")
    with pytest.raises(FileNotFoundError, match="must have its recipes in share/"):
        packaged.root()


def test_an_installed_package_finds_its_own_share(tmp_path, monkeypatch):
    (tmp_path / "package/share/egs2/TEMPLATE").mkdir(parents=True)
    monkeypatch.setattr(packaged, "PACKAGE", tmp_path / "package")
    assert packaged.root() == tmp_path / "package/share"


def test_the_citation_is_of_this_version_and_license(setup):
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == __version__ == setup.version()
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["license"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## {__version__}" in changes


def test_every_requirement_has_a_lower_bound(setup):
    for name, needs in {"": setup.INSTALL_REQUIRES, **setup.EXTRAS}.items():
        assert needs, name
        for need in needs:
            assert any(mark in need for mark in (">=", "==", "<=")), need


def test_the_hint_for_a_missing_espnet_is_what_is_tested(setup):
    assert " ".join(setup.ESPNET_202511) == main.ESPNET_202511


def test_the_package_is_typed_and_public_names_have_docstrings():
    assert (ROOT / "espnet_lora_experts/py.typed").is_file()
    for path in (ROOT / "espnet_lora_experts").rglob("*.py"):
        assert ast.get_docstring(ast.parse(path.read_text("utf-8"))), path
