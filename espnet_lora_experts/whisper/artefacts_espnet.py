"""What :mod:`.artefacts` tells of what ESPnet's own programs write."""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

from espnet_lora_experts.whisper import headers
from espnet_lora_experts.whisper.yaml_files import parse_yaml, read_yaml

META = "meta.yaml"
"""Names the files of a packed model."""
MOST_META = 2**20
"""Bytes; ESPnet's has hundreds."""
BROKEN_ZIP = (
    *(zipfile.BadZipFile, zlib.error, struct.error),
    *(OSError, EOFError, RuntimeError, ValueError, OverflowError),
)
"""What reading a zip ends in: damage, encryption, names and methods of no kind."""


def training(path: Path) -> dict[str, Any]:
    """A folder of ESPnet's trainer without a system's description."""
    files = [file for file in sorted(path.glob("*.pth")) if not file.is_symlink()]
    config = path / "config.yaml"
    said = read_yaml(config) if config.is_file() else {}
    return {
        "kind": "ESPnet training",
        "model": said.get("model"),
        "backbone": said.get("backbone"),
        **(said.get("model_conf") or {}),
        "max_epoch": said.get("max_epoch"),
        "checkpoints": [
            {"name": file.name, "bytes": file.stat().st_size} for file in files
        ],
    }


def checkpoint(path: Path) -> dict[str, Any]:
    """Trained tensors of an epoch."""
    # Seconds, for nothing else here.
    from espnet_lora_experts.experts.checkpoint import load_tensors

    try:
        state = load_tensors(path)
    except ValueError as error:
        raise ValueError(
            f"{error} (ESPnet's checkpoint.pth is what training resumes from; inspect "
            "an epoch's .pth)"
        ) from error
    sha256 = state.pop("backbone_sha256", None)
    shapes = {k: (tuple(v.shape), str(v.dtype)[6:]) for k, v in state.items()}
    found = [re.search(r"\.lora_A\.(?:expert_)?([^.]+)", key) for key in shapes]
    return {
        "kind": "ESPnet checkpoint",
        "backbone_sha256": bytes(sha256.tolist()).hex() if sha256 is not None else None,
        "experts": sorted({match[1] for match in found if match}),
        "tensors": len(shapes),
        "parameters": headers.count(shapes),
        "dtype": headers.types(shapes),
        "bytes": path.stat().st_size,
    }


def packed(path: Path) -> dict[str, Any]:
    """A model packed by ``espnet2.bin.pack``."""
    with zipfile.ZipFile(path) as archive:
        meta = read_meta(archive, path)
        size = sum(info.file_size for info in archive.infolist())
    return {"kind": "ESPnet packed model", **meta, "bytes": size}


def read_meta(archive: zipfile.ZipFile, path: Path) -> dict[str, Any]:
    """What a packed model says of its files.

    Raises:
        ValueError: It is broken, or larger than it can be.
    """
    try:
        size = archive.getinfo(META).file_size
        if size > MOST_META:
            raise ValueError(f"{size} bytes")
        return parse_yaml(archive.read(META).decode())
    except (KeyError, *BROKEN_ZIP) as error:
        raise ValueError(f"{META} in {path} must be YAML, but got: {error}") from error
