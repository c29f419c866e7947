"""Packed models from strangers: looked through before ESPnet unpacks and loads them.

ESPnet takes the paths that a packed model's ``meta.yaml`` names, and unpickles its
checkpoints whole, which may run code.
"""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from espnet2.main_funcs.pack_funcs import unpack

from espnet_lora_experts.experts.checkpoint import check_tensors
from espnet_lora_experts.whisper.artefacts_espnet import read_meta

MOST_GROWTH = 64
"""Times that a zip may grow; a list of tokens grows fivefold."""
CHECKPOINTS = ("asr_model_file", "lm_file")


def unpack_checked(path: str | Path, folder: str | Path) -> dict[str, str]:
    """ESPnet's ``unpack`` of a zip, of which nothing leaves the folder.

    Args:
        path: The zip.
        folder: An empty folder.

    Returns:
        Paths by ESPnet's names for them, such as ``asr_train_config``.

    Raises:
        ValueError: It is broken, holds links, has or names files outside of itself, or
            is far larger than it looks.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            _check(archive, path)
        return unpack(path, folder)
    except (zipfile.BadZipFile, OSError, RuntimeError, EOFError) as error:
        raise ValueError(f"{path} must be a whole zip, but got: {error}") from error


def check_checkpoints(files: Mapping[str, Any]) -> None:
    """Checks that what ESPnet is to unpickle holds tensors only.

    Args:
        files: Paths by ESPnet's names; None stands for none.

    Raises:
        ValueError: A checkpoint holds something else, or is broken.
    """
    for name in CHECKPOINTS:
        if files.get(name) is not None:
            check_tensors(files[name])


def _check(archive: zipfile.ZipFile, path: Path) -> None:
    infos = archive.infolist()
    names = {info.filename for info in infos}
    for info in infos:
        if _leaves(info.filename) or stat.S_ISLNK(info.external_attr >> 16):
            raise ValueError(
                f"{path} must hold files inside itself, but got {info.filename!r}"
            )
    size = sum(info.file_size for info in infos)
    if size > MOST_GROWTH * path.stat().st_size:
        raise ValueError(
            f"{path} must unpack to {MOST_GROWTH} times its size at most, but claims "
            f"{size} bytes"
        )
    meta = read_meta(archive, path)
    for key in ("files", "yaml_files"):
        found = meta.get(key)
        if not isinstance(found, dict) or not {*map(str, found.values())} <= names:
            raise ValueError(
                f"{key} in meta.yaml of {path} must be files of it, but got {found}"
            )


def _leaves(name: str) -> bool:
    return PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts
