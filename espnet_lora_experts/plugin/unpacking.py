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

import yaml
from espnet2.main_funcs.pack_funcs import unpack

from espnet_lora_experts.experts.checkpoint import check_tensors
from espnet_lora_experts.whisper.artefacts_espnet import BROKEN_ZIP, META, read_meta
from espnet_lora_experts.whisper.source import leaves
from espnet_lora_experts.whisper.yaml_files import parse_yaml

MOST_GROWTH = 64
"""Times that a zip may grow; a list of tokens grows fivefold."""
MOST_FILES = 500
"""ESPnet packs a dozen, and looks each up in each configuration."""
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Of packing; others may reserve gigabytes, as their files tell them to."""
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
            _check(archive)
        return unpack(path, folder)
    # YAMLError: ESPnet's reader refuses a few things that ours takes.
    except (yaml.YAMLError, *BROKEN_ZIP) as error:
        raise ValueError(
            f"{path} must be a whole model of espnet2.bin.pack, but got: {error}"
        ) from error


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


def _check(archive: zipfile.ZipFile) -> None:
    infos = archive.infolist()
    for info in infos:
        if leaves(info.filename) or stat.S_ISLNK(info.external_attr >> 16):
            raise ValueError(f"{info.filename!r}, which leads out of it")
        if info.compress_type not in METHODS:
            raise ValueError(f"{info.filename!r}, which is neither stored nor deflated")
    if len(infos) > MOST_FILES:
        raise ValueError(f"{len(infos)} files, more than {MOST_FILES}")
    path = Path(archive.filename)
    size, whole = sum(info.file_size for info in infos), path.stat().st_size
    if size > MOST_GROWTH * whole:
        raise ValueError(
            f"{size} bytes in it, more than {MOST_GROWTH} times its {whole}"
        )
    # ESPnet takes the first of this name, in whatever folder.
    metas = [x.filename for x in infos if PurePosixPath(x.filename).name == META]
    if metas != [META]:
        raise ValueError(f"{metas} instead of one {META}")
    _check_named(archive, read_meta(archive, path))


def _check_named(archive: zipfile.ZipFile, meta: Mapping[str, Any]) -> None:
    """What ESPnet looks up in a description: files of the archive; YAML, which is."""
    names = archive.namelist()
    for key in ("files", "yaml_files"):
        found = meta.get(key)
        values = found.values() if isinstance(found, dict) else [None]
        if not all(isinstance(x, str) and names.count(x) == 1 for x in values):
            raise ValueError(f"{found} as {key} in its {META}, which it must hold")
    for name in meta["yaml_files"].values():
        parse_yaml(archive.read(name).decode())
