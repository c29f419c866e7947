"""Debian packages as a corpus source: find or download, check, unpack once.

Recipes may share a folder of downloads: one of them fetches, the others wait.
"""

import hashlib
import io
import logging
import lzma
import os
import shutil
import subprocess
import zlib
from pathlib import Path

from espnet_lora_experts import atomic

try:
    from backports import tarfile  # Python before 3.11.4 has no filters
except ImportError:
    import tarfile

logger = logging.getLogger(__name__)

# package -> (version, sha256 of its .deb)
KNOWN = {
    "fillets-ng-data": (
        "1.0.1-1.1",
        "25de89afd8b1adf7bcace8290248a6a22c89cd42300317e69000e162c032cf84",
    ),
    "fillets-ng-data-cs": (
        "1.0.1-1.1",
        "3ecef99b9456f1c80c9625c6f2418642b52d58e7167a46bad7a412db17991b14",
    ),
    "fillets-ng-data-nl": (
        "1.0.1-1.1",
        "afb4443fda9ab507dee578b75be857d121718a1cd6017a474f30e0eb13dc9d10",
    ),
    "tuxpaint-stamps-default": (
        "2022.06.04-1",
        "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
    ),
}


BROKEN = (ValueError, StopIteration, OSError, EOFError, tarfile.TarError, zlib.error)
BROKEN += (lzma.LZMAError, OverflowError)


def get(package: str, download_dir: Path) -> Path:
    """Folder that holds the unpacked package; made on the first call.

    Args:
        package: Debian package name.
        download_dir: Folder searched for ``<package>_*.deb``; what is missing there is
            downloaded to it, and unpacked under its ``unpacked/``.

    Raises:
        ValueError: When the package is not found or its hash is wrong.
    """
    deb = find(package, download_dir)
    if deb and place(deb).is_dir():
        return place(deb)
    with atomic.alone(download_dir / package):
        return _get(package, download_dir)


def _get(package: str, download_dir: Path) -> Path:
    """The same, where no other process is at it."""
    deb = find(package, download_dir)
    if deb is None:
        download(package, download_dir)
        deb = find(package, download_dir)
    if deb is None:
        raise ValueError(f"{package} must leave a .deb in {download_dir}, but got none")
    if not place(deb).is_dir():
        check(package, deb)
        unpack(deb, place(deb))
    return place(deb)


def place(deb: Path) -> Path:
    """Where a package is unpacked."""
    return deb.parent / "unpacked" / deb.stem


def find(package: str, download_dir: Path) -> Path | None:
    """The package's .deb in a folder, the known version first, or None."""
    found = sorted(download_dir.glob(f"{package}_*.deb"))
    known = [deb for deb in found if version(deb) == KNOWN.get(package, ("",))[0]]
    return (known or found or [None])[-1]


def version(deb: Path) -> str:
    """Version of ``name_version_architecture.deb``."""
    return deb.stem.split("_")[1]


def download(package: str, download_dir: Path) -> None:
    """Run ``apt-get download``, after ``apt-get update`` when the first try fails."""
    if shutil.which("apt-get") is None:
        raise ValueError(
            f"{package} must be in {download_dir} where there is no apt-get, but got no"
            f" such file; put {package}_<version>_all.deb there"
        )
    logger.info("downloading %s to %s", package, download_dir)
    command = ["apt-get", "download", package]
    with atomic.scratch(download_dir / package) as scratch:
        failed = subprocess.run(command, cwd=scratch, check=False).returncode
        if failed:
            update = subprocess.run(["apt-get", "update"], check=False).returncode
            failed = subprocess.run(command, cwd=scratch, check=False).returncode
        if failed:
            raise ValueError(
                f"apt-get download {package} must succeed, but got exit status {failed}"
                f" (apt-get update: {update}); put the .deb in {download_dir} by hand"
            )
        for deb in scratch.glob("*.deb"):  # whole now
            os.replace(deb, download_dir / deb.name)


def check(package: str, deb: Path) -> None:
    """Compare the hash of a known version; note any other version in the log."""
    known_version, sha256 = KNOWN.get(package, ("", ""))
    if version(deb) != known_version:
        logger.warning("%s: unchecked version, known: %s", deb.name, known_version)
        return
    with deb.open("rb") as stream:
        got = hashlib.file_digest(stream, "sha256").hexdigest()
    if got != sha256:
        raise ValueError(
            f"sha256 of {deb} must be {sha256}, but got {got}; delete the file and"
            " run again"
        )


def unpack(deb: Path, folder: Path) -> None:
    """Unpack a package; ``folder`` is whole or absent."""
    logger.info("unpacking %s", deb.name)
    with atomic.folder(folder) as tree:
        if shutil.which("dpkg-deb"):
            subprocess.run(["dpkg-deb", "-x", str(deb), str(tree)], check=True)
        else:
            extract(deb, tree)


def extract(deb: Path, folder: Path) -> None:
    """Unpack without dpkg-deb: a .deb is an ``ar`` archive that holds a data.tar.

    Raises:
        ValueError: When it is broken, or a member leads out of ``folder``.
    """
    try:
        content = next(
            content
            for name, content in ar_members(deb.read_bytes())
            if name.startswith("data.tar")
        )
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            tar.extractall(folder, filter="data")
    # Of the headers, of the tar, of its compression, of names that no file can have.
    except BROKEN as error:
        raise ValueError(
            f"{deb} must hold a whole data.tar, but got {type(error).__name__}: {error}"
        ) from error


def ar_members(archive: bytes):
    """Yield (name, content) of an ``ar`` archive: 60-byte headers, even offsets."""
    start = len(b"!<arch>\n")
    while start + 60 <= len(archive):
        header = archive[start : start + 60]
        size = int(header[48:58])
        if size < 0:
            raise ValueError(f"a member of {size} bytes")
        name = header[:16].decode().strip().rstrip("/")
        yield name, archive[start + 60 : start + 60 + size]
        start += 60 + size + size % 2
