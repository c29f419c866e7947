"""Where an export goes: nothing is lost that is no earlier export."""

from __future__ import annotations

import struct
from pathlib import Path

from espnet_lora_experts.whisper.convert_ggml import MAGIC

MARK = "export.json"
"""In every exported folder: says what it is."""


def check(out: Path, source: Path, force: bool, is_file: bool) -> None:
    """Checks that an export may be written.

    Args:
        out: Where to.
        source: The folder of the system that is exported.
        force: Whether an earlier export there may be replaced.
        is_file: Whether the export is a file.

    Raises:
        ValueError: Something is there that would be lost, or is of the other kind.
    """
    above = next((path for path in out.parents if path.is_file()), None)
    if above is not None:
        raise ValueError(f"{out} must lie in a folder, but {above} is a file")
    if out.resolve() in (source.resolve(), *source.resolve().parents):
        raise ValueError(
            f"{out} must be another place than the system that is exported, but holds "
            f"{source}; give a folder beside it or in it"
        )
    if is_file and out.is_dir():
        raise ValueError(
            f"{out} must be a file, but is a folder; give {out / 'ggml-model.bin'}"
        )
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not force:
        raise ValueError(
            f"{out} must be new, but exists; give another place, or --force to replace "
            "an earlier export"
        )
    if not (_is_ggml(out) if is_file else (out / MARK).is_file()):
        mark = "is no ggml file" if is_file else f"has no {MARK}"
        raise ValueError(
            f"{out} must be an earlier export to be replaced, but {mark}; give another "
            "place, or remove it yourself"
        )


def _is_ggml(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(4) == struct.pack("<I", MAGIC)
