"""``system.json``: what a system's folder says it is. Imports nothing heavy."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from espnet_lora_experts import atomic

DESCRIPTION = "system.json"
REQUIRED = ("type", "languages", "backbone")
NAME, MOST_NAMES = re.compile(r"[\w-]{1,64}"), 2_000
"""Names of languages and experts: they become keys of modules, and folders."""
SHOWN = 200
"""Most letters of a wrong value that an error repeats."""


def read_description(folder: str | os.PathLike) -> dict[str, Any]:
    """The content of a folder's ``system.json``.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is broken, or does not say what every system's does.
    """
    path = Path(folder) / DESCRIPTION
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} must be a system's folder, but has no {DESCRIPTION}; a finished "
            "training writes it (stages 5 to 8)"
        )
    what = read_json(path)
    lacking = [key for key in REQUIRED if key not in what]
    if lacking:
        raise ValueError(
            f"{path} must say its {', '.join(lacking)}, but does not; train the system "
            "or copy its folder again"
        )
    _check_kinds(what, path)
    return what


def _check_kinds(what: Mapping[str, Any], path: Path) -> None:
    backbone, experts = what["backbone"], what.get("experts", {})
    if not isinstance(what["type"], str):
        raise ValueError(f"type in {path} must be text, but got {_brief(what['type'])}")
    for key, content, kind in (
        ("languages", what["languages"], list),
        ("backbone", backbone, dict),
        ("experts", experts, dict),
    ):
        values = content.values() if isinstance(content, dict) else content
        if not isinstance(content, kind) or not all(isinstance(x, str) for x in values):
            raise ValueError(
                f"{key} in {path} must be a {kind.__name__} of text, but got "
                f"{_brief(content)}"
            )
    if not {"name", "sha256"} <= set(backbone):
        raise ValueError(
            f"backbone in {path} must have a name and a sha256, but got "
            f"{_brief(backbone)}"
        )
    names = [*what["languages"], *experts]
    wrong = [name for name in names if not NAME.fullmatch(name)]
    if wrong or len(names) > MOST_NAMES:
        raise ValueError(
            f"languages and experts in {path} must have names of letters, digits, '-' "
            f"and '_', up to {MOST_NAMES} of them, but got {_brief(wrong or names)}"
        )


def _brief(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= SHOWN else f"{shown[:SHOWN]} ..."


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        ValueError: The file is broken or holds something else; the message names it.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # of JSON or of UTF-8; nested lists
        raise ValueError(
            f"{path} must be whole JSON, but got: {error}; train, copy or download it "
            "again"
        ) from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} must hold a JSON object, but got {_brief(found)}")
    return found


def write_description(folder: Path, what: Mapping[str, Any]) -> None:
    """Writes a folder's ``system.json``; the folder is made where it lacks."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / DESCRIPTION, what)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes JSON, see :func:`~.atomic.write_text`."""
    atomic.write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
