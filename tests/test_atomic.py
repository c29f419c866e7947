"""Files and folders are whole or as they were; what a killed process leaves goes."""

import os
import subprocess
import sys

import pytest

from espnet_lora_experts import atomic


def test_a_folder_shows_the_new_content_only_when_whole(tmp_path):
    folder = tmp_path / "parent" / "folder"
    for content in "old", "new":
        with atomic.folder(folder) as temp:
            (temp / content).write_text(content)
            assert not (folder / content).exists()
        assert [path.name for path in folder.iterdir()] == [content]
    assert list(folder.parent.iterdir()) == [folder]


def test_a_folder_may_hold_links_that_lead_nowhere(tmp_path):
    with atomic.folder(tmp_path / "made") as temp:  # as Debian's fillets-ng-data does
        (temp / "font.ttf").symlink_to("/usr/share/fonts/of/another/package.ttf")
    (link,) = (tmp_path / "made").iterdir()
    assert link.is_symlink() and not link.exists()


@pytest.mark.parametrize("existed", [True, False])
def test_a_folder_leaves_everything_on_an_error(tmp_path, existed):
    folder = tmp_path / "folder"
    if existed:
        folder.mkdir()
        (folder / "old").write_text("old")
    with pytest.raises(RuntimeError, match="inside"):
        with atomic.folder(folder) as temp:
            (temp / "new").write_text("half")
            raise RuntimeError("inside")
    assert folder.exists() == existed
    assert [p.name for p in tmp_path.rglob("*")] == ["folder", "old"] * existed


def test_a_file_shows_the_new_content_only_when_whole(tmp_path):
    path = tmp_path / "parent" / "file.txt"
    for content in "old", "new":
        with atomic.file(path) as temp:
            temp.write_text(content)
            assert temp.suffix == ".txt"  # some writers choose their format by it
            assert not path.exists() or path.read_text() == "old"
        assert path.read_text() == content
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("existed", [True, False])
def test_a_file_stays_on_an_error(tmp_path, existed):
    path = tmp_path / "file"
    if existed:
        path.write_text("old")
    with pytest.raises(RuntimeError, match="inside"):
        with atomic.file(path) as temp:
            temp.write_text("half")
            raise RuntimeError("inside")
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"] * existed


def test_everything_is_on_the_disk_before_it_is_renamed(tmp_path, monkeypatch):
    """Or the power fails between the two, and the new name has no content."""
    done = []

    def fsync(handle):
        done.append(os.path.basename(os.readlink(f"/proc/self/fd/{handle}")))

    monkeypatch.setattr(os, "fsync", fsync)
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda *x: (done.append("now"), replace(*x)))
    atomic.write_text(tmp_path / "text", "whole")
    written, now, parent = done
    assert written.endswith(".text") and (now, parent) == ("now", tmp_path.name)


def test_equal_text_keeps_its_date(tmp_path):
    path = tmp_path / "text"
    atomic.write_text(path, "да")
    before = path.stat()
    atomic.write_text(path, "да")
    assert path.stat() == before
    atomic.write_text(path, "нет")
    assert path.stat().st_ino != before.st_ino


def test_folders_change_places_in_one_step(tmp_path, monkeypatch):
    """No moment without the folder; where the system cannot, by two renames."""
    folder = tmp_path / "folder"
    for exchanges in True, False:
        if not exchanges:
            monkeypatch.setattr(atomic, "_exchange", lambda *names: False)
        for content in "old", "new":
            with atomic.folder(folder) as temp:
                (temp / content).touch()
            assert os.listdir(folder) == [content]
        assert os.listdir(tmp_path) == ["folder"]
    monkeypatch.undo()
    one, other = tmp_path / "one", tmp_path / "other"
    (one / "1").mkdir(parents=True)
    (other / "2").mkdir(parents=True)
    assert atomic._exchange(one, other) == (sys.platform == "linux")
    assert os.listdir(one) == ["2"] and os.listdir(other) == ["1"]


def test_what_a_killed_process_leaves_goes_and_what_lives_stays(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    machine = atomic._MACHINE
    for process in gone.pid, os.getpid(), os.getppid():
        (tmp_path / f".part-{machine}-{process}.file").touch()
        (tmp_path / f".part-{machine}-{process}.folder").mkdir()
    (tmp_path / f".part-0-{gone.pid}.file").touch()  # of another machine
    atomic.write_text(tmp_path / "text", "")
    left = {path.name for path in tmp_path.iterdir()}
    assert not any(f"{machine}-{gone.pid}." in name for name in left)
    assert len(left) == 2 * 2 + 1 + 1
