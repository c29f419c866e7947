"""Archives of corpora: found, or downloaded in pieces and checked; unpacked whole.

Recipes may share a folder of downloads: one of them fetches, the others wait.
"""

import errno
import hashlib
import http.client
import logging
import os
import shutil
import time
import urllib.error
import urllib.request
import zlib
from base64 import b64decode
from pathlib import Path

from tqdm import tqdm

from espnet_lora_experts import atomic

try:
    from backports import tarfile  # Python before 3.11.4 has no filters
except ImportError:
    import tarfile

logger = logging.getLogger(__name__)
TRIES = 6
"""Attempts in a row without a byte received before it is given up."""
TIMEOUT = 60
"""Seconds that a server may be silent."""
BLOCK = 2**20
DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES}
"""Errors of the disk, which no other try mends."""


def provide(
    folder: Path, inner: str, archive: Path, url: str = "", md5: str = ""
) -> Path:
    """The unpacked folder; from its archive, which is downloaded where it is missing.

    Args:
        folder: What is wanted.
        inner: The same folder inside the archive.
        archive: Where the archive is looked for, and downloaded to.
        url: Where it is downloaded from.
        md5: Hash that the archive must have, in hexadecimal digits; "": as the server
            says, if it says any.

    Raises:
        ValueError: It cannot be had; says what to put where.
    """
    if folder.is_dir():
        return folder
    if not archive.is_file():
        fetch(url, archive, md5)
    unpack(archive, folder, inner)
    return folder


def fetch(url: str, path: Path, md5: str = "") -> None:
    """Download a file that is not there yet; ``*.part``, of another try, is continued.

    Raises:
        ValueError: The server refuses it, or it is not what it should be.
    """
    with atomic.alone(path):
        if not path.is_file():  # else another process was first
            _fetch(url, path, md5)


def _fetch(url: str, path: Path, md5: str) -> None:
    part = path.with_name(f"{path.name}.part")
    failed, size = 0, _size(part)
    while True:
        try:
            told = _receive(url, part)
            break
        except (OSError, http.client.HTTPException) as error:
            refused = isinstance(error, urllib.error.HTTPError) and error.code < 500
            refused = refused or getattr(error, "errno", None) in DISK
            failed = failed + 1 if _size(part) <= size else 1
            if refused or failed == TRIES:
                raise ValueError(
                    f"{url} must be downloadable, but got: {error}; run again to go on,"
                    f" or put the file at {path.absolute()}"
                ) from error
            size = _size(part)
            logger.warning("%s: %s; trying again", path.name, error)
            time.sleep(2 ** (failed - 1))
    check(part, md5 or told, path)
    os.replace(part, path)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _receive(url: str, part: Path) -> str:
    """Append what is missing; gives the hash that the server tells, "" when it is none.

    Raises:
        OSError: The connection fails or ends early.
    """
    start = _size(part)
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        end = error.headers.get("Content-Range", "").rpartition("/")[2]
        if error.code == 416 and start and end == str(start):
            return _told(error.headers)
        raise
    with response:
        if response.status != 206:  # the server knows no ranges
            start = 0
        left = int(response.headers.get("Content-Length", 0))
        _require_space(part.parent, left)
        name = part.name.removesuffix(".part")
        shown = {"total": start + left, "initial": start, "desc": name, "ncols": 79}
        with (
            part.open("ab" if start else "wb") as file,
            tqdm.wrapattr(response, "read", mininterval=10, **shown) as stream,
        ):
            shutil.copyfileobj(stream, file, BLOCK)
        if _size(part) != start + left:
            raise OSError(f"the connection ended at {_size(part)} of {start + left} B")
        return _told(response.headers)


def _told(headers: http.client.HTTPMessage) -> str:
    """Google's storage says each object's MD5."""
    for value in ",".join(headers.get_all("x-goog-hash", [])).split(","):
        kind, _, digest = value.strip().partition("=")
        if kind == "md5":
            return b64decode(digest).hex()
    return ""


def _require_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(
            f"{folder.absolute()} must have {needed / 1e9:.1f} GB free for the"
            f" download, but has {free / 1e9:.1f}; name another folder"
        )


def check(part: Path, md5: str, path: Path) -> None:
    """Compare a file's MD5; a wrong file is removed, as it cannot be continued.

    Raises:
        ValueError: It differs.
    """
    if not md5:
        logger.info("%s: no hash is published; its size is right", path.name)
        return
    with part.open("rb") as stream:
        got = hashlib.file_digest(
            stream, lambda: hashlib.md5(usedforsecurity=False)
        ).hexdigest()
    if got != md5:
        part.unlink()
        raise ValueError(
            f"MD5 of {path.name} must be {md5}, but got {got}; the file is removed, run"
            " again to download it anew"
        )


def unpack(archive: Path, folder: Path, inner: str) -> None:
    """Unpack beside ``folder`` and rename, so that ``folder`` is whole or absent.

    Raises:
        ValueError: The archive is broken, or has no such folder.
    """
    with atomic.alone(folder):
        if not folder.is_dir():  # else another process was first
            _unpack(archive, folder, inner)


def _unpack(archive: Path, folder: Path, inner: str) -> None:
    scratch = folder.with_name(f".{folder.name}.unpacking")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    logger.info("unpacking %s", archive)
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(scratch, filter="data")
            while tar.fileobj.read(BLOCK):  # to the end, where gzip's own check is
                pass
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        shutil.rmtree(scratch)
        raise ValueError(
            f"{archive} must be a whole tar archive, but got: {error}; remove it and"
            " run again"
        ) from error
    if not (scratch / inner).is_dir():
        there = sorted(os.listdir(scratch))
        shutil.rmtree(scratch)
        raise ValueError(f"{archive} must have a folder {inner}, but has {there[:9]}")
    os.replace(scratch if inner == "." else scratch / inner, folder)
    shutil.rmtree(scratch, ignore_errors=True)
