"""Where a system comes from: its folder, a bare PEFT adapter, or a hub id of either.

What was downloaded is not trusted with this machine's other files: its paths stay
inside its snapshot, and pickles are not fetched.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espnet_lora_experts.experts.adapter import CONFIG
from espnet_lora_experts.experts.store import WEIGHTS, read_metadata
from espnet_lora_experts.whisper import snapshot
from espnet_lora_experts.whisper.backbone import Backbone
from espnet_lora_experts.whisper.card import languages_of
from espnet_lora_experts.whisper.description import (
    DESCRIPTION,
    read_description,
    read_json,
)
from espnet_lora_experts.whisper.languages import get


@dataclass(frozen=True)
class Source:
    """A system as it was found.

    Attributes:
        folder: Where its files are.
        what: Its description.
        downloaded: Whether they came from a hub.
    """

    folder: Path
    what: dict[str, Any]
    downloaded: bool = False

    def find_backbone(self, given: Backbone | None = None) -> Backbone:
        """The Whisper that it was trained on: the given one, if it is that.

        Raises:
            FileNotFoundError: No source has the Whisper that is named.
            ValueError: None is named, or the one that has the name is another.
        """
        name, sha256 = (self.what["backbone"][key] for key in ("name", "sha256"))
        if given and (given.sha256 == sha256 or not sha256 and given.name == name):
            return given
        if not name or self.downloaded and leaves(name):
            if given and not sha256:
                return given  # nobody can tell; load_expert compares the shapes
            raise ValueError(
                f"{self.folder} must name its backbone by a hub id, but got {name!r}; "
                "give backbone, the Whisper that it was trained on "
                f"({sha256[:12] or 'no hash is known'})"
            )
        inside = self.folder / name
        found = Backbone.from_pretrained(str(inside if inside.is_dir() else name))
        if sha256 and found.sha256 != sha256:
            raise ValueError(
                f"{self.folder} must run on the backbone {sha256[:12]} ({name}), but "
                f"the one found is {found.sha256[:12]}; give the Whisper it was "
                "trained on"
            )
        return given if given and given.sha256 == found.sha256 else found


def find(name: str | os.PathLike, languages: Sequence[str] | None = None) -> Source:
    """Finds a system and reads its description.

    Args:
        name: A folder, or a hub id, see :func:`~.snapshot.fetch`.
        languages: Of an adapter whose model card does not name them.

    Raises:
        FileNotFoundError: There is no such folder or repository, or it holds neither a
            system nor an adapter.
        ValueError: A broken description, no languages, or a download that reaches out
            of its folder.
    """
    folder = Path(name)
    if folder.exists():
        return Source(folder, _describe(folder, languages))
    folder = snapshot.fetch(os.fspath(name))
    what = _describe(folder, languages)
    for path in what.get("experts", {}).values():
        _check_downloaded(folder, path, os.fspath(name))
    return Source(folder, what, downloaded=True)


def _describe(folder: Path, languages: Sequence[str] | None) -> dict[str, Any]:
    """A system's description; that of a bare adapter is made here."""
    system = (folder / DESCRIPTION).is_file()
    if not system and (folder / "config.json").is_file():
        raise ValueError(
            f"{folder} must be a system's folder, but is a Whisper by itself; give it "
            "to Speech2Text.vanilla as a backbone"
        )
    if system or not (folder / CONFIG).is_file():
        return read_description(folder)
    codes = [get(code).code for code in languages or languages_of(folder)]
    if not codes:
        raise ValueError(
            f"{folder} must name its languages in the metadata of its README.md, but "
            'does not; give them, for example languages=["es"]'
        )
    metadata = read_metadata(folder / WEIGHTS)
    name = metadata.get("expert") or (codes[0] if len(codes) == 1 else "adapter")
    return {
        "type": "single",
        "languages": codes,
        "backbone": {
            "name": read_json(folder / CONFIG).get("base_model_name_or_path") or "",
            "sha256": metadata.get("backbone_sha256") or "",
        },
        "experts": {name: "."},
    }


def _check_downloaded(folder: Path, path: str, name: str) -> None:
    if leaves(path):
        raise ValueError(
            f"{folder / DESCRIPTION} must name paths inside its repository, but got "
            f"{path!r}; publish the system by espnet_lora_experts.bin.push"
        )
    if not (folder / path / WEIGHTS).is_file():
        raise FileNotFoundError(
            f"{name} must have {WEIGHTS}, since pickles are not downloaded, but has "
            f"none; look at what it has, get it by `hf download {name.split('@')[0]} "
            "--local-dir DIR`, and load DIR"
        )


def leaves(path: str) -> bool:
    """Whether a path leads out of the folder that it is relative to.

    Example:
        >>> leaves("experts/es"), leaves("experts/../../es"), leaves("~/es")
        (False, True, True)
    """
    return Path(path).is_absolute() or path[:1] == "~" or ".." in Path(path).parts
