"""What :mod:`.artefacts` tells of what ESPnet's own programs write."""

from __future__ import annotations

import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import yaml

from espnet_lora_experts.whisper import headers

META = "meta.yaml"
"""Names the files of a packed model."""


def training(path: Path) -> dict[str, Any]:
    """A folder of ESPnet's trainer without a system's description."""
    files = [file for file in sorted(path.glob("*.pth")) if not file.is_symlink()]
    config = path / "config.yaml"
    said = _read_yaml(config) if config.is_file() else {}
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
    import torch  # seconds, for nothing else here

    try:
        state = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"{path} must hold tensors only and be whole, but is not (ESPnet's "
            "checkpoint.pth is what training resumes from); inspect an epoch's .pth"
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
        meta = yaml.safe_load(archive.read(META))
        size = sum(info.file_size for info in archive.infolist())
    return {"kind": "ESPnet packed model", **meta, "bytes": size}


def _read_yaml(path: Path) -> dict[str, Any]:
    """By libyaml where it is: ESPnet's config.yaml lists all tokens."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(path.read_text(encoding="utf-8"), loader)
