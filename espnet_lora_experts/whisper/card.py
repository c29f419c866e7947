"""Model cards: the README.md of a system and of each expert, as the hub reads it.

A card is written with the weights and again when there is more to say (results, a
license, the hub id), but only while it is as it was written: what a person wrote or
edited stays.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from espnet_lora_experts import atomic
from espnet_lora_experts.experts.store import README
from espnet_lora_experts.whisper import languages
from espnet_lora_experts.whisper.card_page import Pages
from espnet_lora_experts.whisper.card_scores import HUB_CODES
from espnet_lora_experts.whisper.description import DESCRIPTION, read_description
from espnet_lora_experts.whisper.yaml_files import parse_yaml

logger = logging.getLogger(__name__)

MARK = (
    "<!-- By espnet_lora_experts, {}: a card that is edited is not written again. -->"
)
MARKED = re.compile(re.escape(MARK).replace(r"\{\}", "([0-9a-f]{64})"))


def update_cards(
    folder: str | os.PathLike,
    results: Mapping[str, Any] | None = None,
    repo_id: str = "",
    license: str | None = None,
) -> list[Path]:
    """Writes the cards of a system and its experts, or of one expert of a system.

    Args:
        folder: A system's folder, or one of its experts' (``exp/mono/experts/es``).
        results: The content of ``results.json``; a system is looked up in it by its
            folder's name.
        repo_id: Where it is on the hub, for the lines that load it.
        license: Identifier such as ``cc-by-4.0``; None keeps what the card says.

    Returns:
        The cards that are as they should be now; those that a person wrote or edited,
        and those of adapters that no system near by claims, are left out.
    """
    folder = Path(folder)
    alone = not (folder / DESCRIPTION).is_file()
    system = folder.resolve().parent.parent if alone else folder
    if not (system / DESCRIPTION).is_file():
        return []
    what = read_description(system)
    scores = (results or {}).get("systems", {}).get(system.resolve().name, {})
    pages = Pages(system, what, scores, (results or {}).get("meta", {}), repo_id)
    cards = {} if alone else {system: pages.system()}
    for name, path in what.get("experts", {}).items():
        if not alone or os.path.samefile(system / path, folder):
            cards[system / path] = pages.expert(name, alone)
    return [at / README for at, card in cards.items() if write_card(at, *card, license)]


def write_exported(
    out: Path, folder: Path, what: Mapping[str, Any], facts: Mapping[str, Any]
) -> None:
    """Writes the card of an export that is one Whisper.

    Args:
        out: The export's folder.
        folder: The system's.
        what: The system's description.
        facts: The content of ``export.json``.
    """
    pages = Pages(folder, what, {}, {})
    write_card(out, *pages.exported(out.resolve().name, facts))


def write_card(
    folder: Path, data: ModelCardData, text: str, license: str | None = None
) -> bool:
    """Writes a card unless a person's is there.

    Args:
        folder: Where to.
        data: Its metadata.
        text: Its page.
        license: See :func:`update_cards`.

    Returns:
        Whether the card is ours.
    """
    path = folder / README
    old = path.read_text(encoding="utf-8") if path.is_file() else ""
    if old and not is_ours(old):
        logger.warning("%s was edited or is not ours, so it stays as it is", path)
        return False
    data.license = license or (ModelCard(old).data.license if old else None)
    card = f"---\n{data.to_yaml()}\n---\n\n{text}\n\n"
    atomic.write_text(path, f"{card}{MARK.format(_digest(card))}\n")
    return True


def is_ours(text: str) -> bool:
    """Whether a card is, to the letter, one that :func:`write_card` wrote."""
    found = MARKED.search(text)
    if found is None or text[found.end() :].strip():
        return False
    return _digest(text[: found.start()]) == found[1]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def languages_of(folder: Path) -> list[str]:
    """Whisper's codes of the languages that a folder's card names; [] without any.

    Regions (``pt-BR``) are left out, as is what :mod:`.languages` lacks.
    """
    try:
        named = _metadata((folder / README).read_text(encoding="utf-8")).get("language")
    except (OSError, ValueError):  # a card that others wrote, or none
        return []
    whisper = {hub: code for code, hub in HUB_CODES.items()}
    whisper["false"] = "no"  # what YAML makes of Norwegian without quotes
    codes = [
        str(code).lower().partition("-")[0]
        for code in (named if isinstance(named, list) else [named])
    ]
    codes = [whisper.get(code, code) for code in codes]
    return [code for code in dict.fromkeys(codes) if code in languages.TABLE]


def _metadata(text: str) -> dict[str, Any]:
    """What a card says between its first two lines of dashes; {} without them."""
    lines = [line.rstrip("\r") for line in text.lstrip().split("\n")]
    if lines[0] != "---" or "---" not in lines[1:]:
        return {}
    return parse_yaml("\n".join(lines[1 : lines.index("---", 1)]))
