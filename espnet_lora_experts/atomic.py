"""Files and folders that are whole or as they were, whenever the process is killed.

What is new is written beside its place, brought to the disk and renamed: the disk may
be full, the process killed or the power fail at any moment. What a killed process
leaves, ``.part-MACHINE-PROCESS.NAME``, the next that writes into the folder removes.
Needs the standard library and filelock only, so that every room may use it.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from zlib import crc32

from filelock import FileLock

_MACHINE = f"{crc32(socket.gethostname().encode()):08x}"
_PART = re.compile(rf"\.part-{_MACHINE}-(\d+)\..*")
_HERE, _EXCHANGE = -100, 2
"""AT_FDCWD and RENAME_EXCHANGE of Linux."""


@contextmanager
def file(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary file that takes the place of ``path`` once it is whole."""
    path = Path(path)
    temp = _part(path)
    try:
        yield temp
        _to_disk(temp)
        os.replace(temp, path)
        _to_disk(path.parent)
    finally:
        temp.unlink(missing_ok=True)


@contextmanager
def folder(path: str | os.PathLike) -> Iterator[Path]:
    """An empty temporary folder that takes the place of ``path`` once it is whole.

    Another folder around it goes afterwards, with what else was put there.
    """
    path = Path(path)
    with scratch(path) as work:
        temp = work / "new"
        temp.mkdir()
        yield temp
        for part in temp.rglob("*"):
            if not part.is_symlink():  # its folder holds it; it may lead nowhere
                _to_disk(part)
        _to_disk(temp)
        _move(temp, path)
        _to_disk(path.parent)


@contextmanager
def scratch(path: str | os.PathLike) -> Iterator[Path]:
    """An empty temporary folder beside ``path``, which goes afterwards."""
    work = _part(Path(path))
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a text file; one that is equal stays, with its date."""
    content = text.encode()
    if not (Path(path).is_file() and Path(path).read_bytes() == content):
        with file(path) as temp:
            temp.write_bytes(content)


def alone(path: str | os.PathLike) -> FileLock:
    """Lets one process after the other make a file or a folder; a kill frees it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path.with_name(f".{path.name}.lock"))


def _part(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path.parent.absolute(), os.getpid())
    return path.with_name(f".part-{_MACHINE}-{os.getpid()}.{path.name}")


@cache
def _sweep(parent: Path, process: int) -> None:
    """Removes what processes left that are gone; once a folder and process."""
    for name in os.listdir(parent):
        part = _PART.fullmatch(name)
        if part and int(part[1]) != process and not _runs(int(part[1])):
            left = parent / name
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        pass
    return True


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        if not path.is_dir():  # some file systems refuse folders
            raise
    finally:
        os.close(handle)


def _move(new: Path, path: Path) -> None:
    """Puts a folder in the place of another, in one step where the system can."""
    if not path.exists():
        new.rename(path)
    elif not _exchange(new, path):
        path.rename(new.with_name("old"))
        new.rename(path)


def _exchange(one: Path, other: Path) -> bool:
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    names = os.fsencode(one), os.fsencode(other)
    return rename is not None and 0 == rename(
        _HERE, names[0], _HERE, names[1], _EXCHANGE
    )
