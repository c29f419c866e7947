"""Snapshots of hub repositories: from a hub that answers in time, or from its cache.

Hugging Face's own cache and variables hold (``HF_HOME``, ``HF_HUB_OFFLINE``,
``HF_ENDPOINT``, ``HF_TOKEN``); an unreachable hub is noticed in seconds.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import huggingface_hub

from espnet_lora_experts.experts.adapter import CONFIG
from espnet_lora_experts.whisper.description import DESCRIPTION
from espnet_lora_experts.whisper.packages import Unavailable

logger = logging.getLogger(__name__)

HUB_TIMEOUT = 4.0  # seconds until a silent hub counts as unreachable
PATTERNS = ("*.safetensors", "*.json", "*.md", "*.txt")
"""What a system or an adapter consists of: no pickle, which may run code, no log."""
MARKS = (DESCRIPTION, CONFIG)
"""Which files say that it is one."""
HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*(@[\w./-]+)?")


def fetch(name: str) -> Path:
    """The newest snapshot of a system's or an adapter's repository.

    Args:
        name: ``user/name``, or ``user/name@revision`` with a branch, tag or commit.

    Returns:
        Its folder in Hugging Face's cache, without files other than :data:`PATTERNS`.

    Raises:
        FileNotFoundError: Neither the hub nor the cache has it; the message lists
            what was tried.
        ValueError: The repository holds something else, which is not downloaded.
    """
    tried = [f"local folder: {name} does not exist"]
    if not HUB_ID.fullmatch(name):
        tried.append("hub: a hub id looks like user/name or user/name@revision")
    else:
        repo_id, _, revision = name.partition("@")
        for source in (partial(download, marks=MARKS), cached):
            try:
                return source(repo_id, PATTERNS, revision or None)
            except Unavailable as reason:
                tried.append(str(reason))
    raise FileNotFoundError(
        f"{name} must be a system's folder, or a hub id that is cached or can be "
        "downloaded, but is neither. Tried:\n  " + "\n  ".join(tried) + "\n"
        "Correct the path; or go online once, without HF_HUB_OFFLINE; of a private "
        "repository, log in by `hf auth login`"
    )


def cached(repo_id: str, patterns: Sequence[str], revision: str | None = None) -> Path:
    """A snapshot in Hugging Face's cache.

    Raises:
        Unavailable: There is none, or it is known to lack files.
    """
    try:
        folder = huggingface_hub.snapshot_download(
            repo_id,
            revision=revision,
            allow_patterns=[*patterns],
            local_files_only=True,
        )
    except (OSError, ValueError) as error:
        raise Unavailable("hub cache: no complete snapshot") from error
    return Path(folder)


def download(
    repo_id: str,
    patterns: Sequence[str],
    revision: str | None = None,
    marks: Sequence[str] = (),
) -> Path:
    """Downloads what a snapshot still lacks.

    Raises:
        Unavailable: The hub is not to be used, silent, or without such a repository.
        ValueError: The repository has none of the files of ``marks``.
    """
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        raise Unavailable("hub: HF_HUB_OFFLINE is set")
    names = _probe(repo_id, revision)
    if marks and names.isdisjoint(marks):
        raise ValueError(
            f"{repo_id} must be a repository with {' or '.join(marks)}, but has "
            f"{sorted(names)[:9]}; a Whisper by itself goes to Speech2Text.vanilla"
        )
    logger.info("downloading %s from the hub, where it is new", repo_id)
    try:
        folder = huggingface_hub.snapshot_download(
            repo_id, revision=revision, allow_patterns=[*patterns]
        )
    except Exception as error:  # of the system, of httpx or of hf_xet
        reason = one_line(error)
        logger.warning("%s must download from the hub, but: %s", repo_id, reason)
        raise Unavailable(f"hub: no download, {reason}") from error
    return Path(folder)


def _probe(repo_id: str, revision: str | None) -> set[str]:
    """The files of a repository; in a thread, because a name server may hang."""
    errors: list[Exception] = []
    names: set[str] = set()

    def ask() -> None:
        try:
            api = huggingface_hub.HfApi()
            info = api.model_info(repo_id, revision=revision, timeout=HUB_TIMEOUT)
            names.update(file.rfilename for file in info.siblings or ())
        except Exception as error:  # handed to the caller
            errors.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(HUB_TIMEOUT)
    if thread.is_alive():
        raise Unavailable(f"hub: no answer in {HUB_TIMEOUT:g} seconds")
    if errors:
        raise Unavailable(f"hub: {one_line(errors[0])}") from errors[0]
    return names


def one_line(error: Exception) -> str:
    """An error's type and message without line breaks."""
    return " ".join(f"{type(error).__name__}: {error}".split())
