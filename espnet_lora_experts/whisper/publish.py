"""To the hub: what a system or an adapter consists of, in one commit, and nothing else.

Experts that a system takes from other folders (``bin/combine.py``) come along; no
checkpoint, log or option file does.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import huggingface_hub

from espnet_lora_experts.experts.adapter import CONFIG, read_config
from espnet_lora_experts.experts.store import README, WEIGHTS, open_tensors
from espnet_lora_experts.whisper.description import DESCRIPTION, read_description
from espnet_lora_experts.whisper.folder import FULL, MOLE_WEIGHTS, VANILLA, check_type
from espnet_lora_experts.whisper.snapshot import HUB_ID, one_line

logger = logging.getLogger(__name__)

OURS = (DESCRIPTION, MOLE_WEIGHTS, CONFIG, WEIGHTS, "experts/", "backbone/")
"""What an older upload may have left in the repository."""


def contents(folder: str | os.PathLike) -> dict[str, Path | bytes]:
    """What goes up, by its path in the repository: a file, or its content.

    Args:
        folder: A system's, or a PEFT adapter's.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A broken file, an adapter that cannot be an expert, or a system that
            has no weights of its own.
    """
    folder = Path(folder)
    if (folder / CONFIG).is_file() and not (folder / DESCRIPTION).is_file():
        files = _adapter(folder)
    else:
        files = _system(folder)
    for path in files.values():
        if isinstance(path, Path) and path.suffix == ".safetensors":
            with open_tensors(path):
                pass
    return files


def _system(folder: Path) -> dict[str, Path | bytes]:
    what = read_description(folder)
    check_type(what["type"], folder)
    if what["type"] == VANILLA:
        raise ValueError(
            f"{folder} must have weights of its own to be published, but is {VANILLA}"
        )
    files: dict[str, Path | bytes] = {}
    experts = {name: f"experts/{name}" for name in what["experts"]}
    for name, path in what["experts"].items():
        for file, source in _adapter(folder / path).items():
            files[f"{experts[name]}/{file}"] = source
    if what["type"] == FULL:
        for path in sorted((folder / what["backbone"]["name"]).iterdir()):
            if path.suffix in (".safetensors", ".json", ".txt"):
                files[f"{path.parent.name}/{path.name}"] = path
    elif what["type"] == "mole":
        files[MOLE_WEIGHTS] = folder / MOLE_WEIGHTS
    what = {**what, "experts": experts}
    files[DESCRIPTION] = (
        json.dumps(what, indent=2, ensure_ascii=False) + "\n"
    ).encode()
    return _with_card(files, folder)


def _adapter(folder: Path) -> dict[str, Path | bytes]:
    base = read_config(folder).base_model_name_or_path or ""
    if not HUB_ID.fullmatch(base):
        logger.warning(
            f"{folder / CONFIG} should name its backbone by a hub id, which others can "
            f"load, but says {base!r}"
        )
    return _with_card({name: folder / name for name in (CONFIG, WEIGHTS)}, folder)


def _with_card(files: dict[str, Path | bytes], folder: Path) -> dict[str, Path | bytes]:
    card = folder / README
    return {**files, README: card} if card.is_file() else files


def push(
    folder: str | os.PathLike,
    repo_id: str,
    private: bool = False,
    token: str | None = None,
    message: str = "",
) -> str:
    """Uploads a system's or an adapter's folder in one commit.

    Args:
        folder: See :func:`contents`.
        repo_id: ``user/name``; the repository is made where it does not exist.
        private: Whether a new repository is private.
        token: Of the hub; None takes ``HF_TOKEN`` or that of ``hf auth login``.
        message: Of the commit.

    Returns:
        Where the commit can be seen.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: What :func:`contents` raises; or the hub refuses or is not there.
    """
    files = contents(folder)
    add = [
        huggingface_hub.CommitOperationAdd(path, source)
        for path, source in files.items()
    ]
    api = huggingface_hub.HfApi(token=token)
    try:
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        old = [path for path in api.list_repo_files(repo_id) if _is_old(path, files)]
        delete = [huggingface_hub.CommitOperationDelete(path) for path in old]
        message = message or f"Upload {Path(folder).resolve().name}"
        return api.create_commit(
            repo_id, [*add, *delete], commit_message=message
        ).commit_url
    except Exception as error:  # of the hub, of httpx or of hf_xet
        raise ValueError(
            f"{folder} must go to the hub as {repo_id}, but: {one_line(error)}; log in "
            "by `hf auth login` (or set HF_TOKEN) as somebody who may write there, and "
            "go online without HF_HUB_OFFLINE"
        ) from error


def _is_old(path: str, files: dict[str, Path | bytes]) -> bool:
    """Whether a file in the repository is of an earlier upload of another kind."""
    return path not in files and path.startswith(OURS)


def size(source: Path | bytes) -> int:
    """Bytes of what :func:`contents` gives."""
    return len(source) if isinstance(source, bytes) else source.stat().st_size
