"""What a job has made, without what differs between two runs of the same: times."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from datetime import timedelta
from pathlib import Path

import torch

TIMES = {"time", "date", "rtf", "s", "timestamp"}


def of(folder: Path) -> dict[str, str]:
    """A hash of each file, by its path; of a link, where it points to."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = os.readlink(path)
        elif path.is_file():
            found[name] = _hash(path)
    return found


def _hash(path: Path) -> str:
    if path.suffix == ".pth":
        content = torch.load(path, map_location="cpu", weights_only=False)
    elif path.suffix == ".json":
        content = json.loads(path.read_text(encoding="utf-8"))
    elif path.name == "RESULTS.md":  # made of results.json, with its times
        content = None
    elif path.suffix == ".zip":
        with zipfile.ZipFile(path) as packed:
            named = {x: packed.read(x) for x in packed.namelist() if x != "meta.yaml"}
        content = named
    else:
        content = path.read_bytes()
    return hashlib.sha256(repr(_plain(content)).encode()).hexdigest()


def _plain(content):
    """Without times; tensors as bytes, so that they are compared to the last bit."""
    if isinstance(content, dict):
        return {k: _plain(v) for k, v in content.items() if not _is_time(k, v)}
    if isinstance(content, list | tuple):
        return [_plain(x) for x in content]
    if isinstance(content, torch.Tensor):
        return content.dtype, tuple(content.shape), content.numpy().tobytes()
    return content


def _is_time(key, value) -> bool:
    timed = isinstance(key, str) and (key in TIMES or key.endswith("_time"))
    return timed or isinstance(value, timedelta)
