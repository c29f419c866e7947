"""A system on disk: one folder that holds all but the backbone, and says what it is.

``system.json`` names the type, the languages, the backbone with its hash, and each
expert's PEFT folder; ``mole.safetensors`` holds a MoLE's fusion and router; a fully
fine-tuned Whisper is a whole backbone in ``backbone/``; each ``README.md`` is a model
card. A PEFT adapter's folder by itself is a system of one expert.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from espnet_lora_experts import atomic
from espnet_lora_experts.experts.store import (
    follow_umask,
    load_expert,
    read_tensors,
    save_expert,
    write_tensors,
)
from espnet_lora_experts.whisper import hub
from espnet_lora_experts.whisper.backbone import Backbone
from espnet_lora_experts.whisper.card import update_cards
from espnet_lora_experts.whisper.description import (
    DESCRIPTION,
    read_description,
    write_description,
)
from espnet_lora_experts.whisper.source import find
from espnet_lora_experts.whisper.systems import Experts, MoLE, Single, System

MOLE_WEIGHTS = "mole.safetensors"
FULL, VANILLA, TWO_PASS = "full", "vanilla", "two_pass"
TYPES = ("single", "experts", "mole", FULL, VANILLA)
"""Types of ``system.json`` that are a system by themselves."""


def describe(backbone: Backbone, system: System) -> dict[str, Any]:
    """What ``system.json`` says of a system, experts' folders left out."""
    what: dict[str, Any] = {
        "type": type(system).__name__.lower() if type(system) is not System else FULL,
        "languages": system.languages,
        "backbone": {"name": backbone.name, "sha256": backbone.sha256},
    }
    if isinstance(system, MoLE):
        what["mole"] = {
            "merged_layers": system.merged_layers,
            "combination": system.fusion.combination,
            "pooling": system.router.pooling,
            "top_k": system.top_k,
        }
    return what


def save_system(
    folder: str | os.PathLike,
    backbone: Backbone,
    system: System,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Writes a system's folder with its model cards; each part is whole or not there.

    Args:
        folder: Where to; other files in it stay.
        backbone: Whose bank holds the experts.
        system: The gates.
        facts: What else ``system.json`` should say, for example steps and parameters.

    Raises:
        ValueError: A mixture of experts, which must be folded first.
    """
    what = describe(backbone, system)
    if what["type"] not in TYPES:
        raise ValueError(
            f"a system must be one of {TYPES} to be saved, but is a {what['type']}; "
            "fold it (Speech2Text's .experts.fold()) and save the folded backbone and "
            "system"
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    what["experts"] = {name: f"experts/{name}" for name in system.experts}
    for name, path in what["experts"].items():
        metadata = {"backbone_sha256": backbone.sha256, "expert": name}
        save_expert(backbone.bank, name, folder / path, backbone.name, metadata)
    if isinstance(system, MoLE):
        write_tensors(folder / MOLE_WEIGHTS, system.state_dict())
    if what["type"] == FULL:
        what["backbone"] = _save_backbone(backbone, folder / "backbone")
    write_description(folder, {**what, **(facts or {})})
    update_cards(folder)


def load_system(
    folder: str | os.PathLike,
    backbone: Backbone | None = None,
    languages: Sequence[str] | None = None,
) -> tuple[Backbone, System, dict[str, Any]]:
    """Loads a system's folder, or that of one PEFT adapter of Whisper.

    Args:
        folder: As written by :func:`save_system`; a PEFT adapter; or the hub id of
            either, ``user/name`` or ``user/name@revision``, see
            :func:`~.snapshot.fetch`.
        backbone: Use this Whisper, if it is the right one, instead of loading another;
            where its bank has experts of the same names already, a twin of it is
            used, which shares its memory.
        languages: Of an adapter whose model card does not name them.

    Returns:
        ``(backbone, system, description)``.

    Raises:
        FileNotFoundError: No ``system.json``, an expert's folder is missing, or neither
            the hub nor its cache has the hub id.
        ValueError: A broken file, a type that is no system by itself, an adapter that
            cannot be an expert, or the backbone found is not the one the system was
            trained on.
    """
    source = find(folder, languages)
    path, what = source.folder, source.what
    check_type(what["type"], path)
    backbone = source.find_backbone(backbone)
    what["backbone"]["sha256"] = backbone.sha256  # an adapter of others lacks it
    experts = what.get("experts", {})  # vanilla does not say that it has none
    if set(backbone.bank.names) & set(experts):
        backbone = backbone.twin()
    for expert, place in experts.items():
        load_expert(backbone.bank, expert, path / place, backbone.sha256)
    try:
        system = _build(backbone, what, path)
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{path / DESCRIPTION} must say all that a system of type {what['type']} "
            f"needs and no more, but got {type(error).__name__}: {error}; was it "
            "written by another version?"
        ) from error
    return backbone, system.eval(), what


def is_system(folder: str | os.PathLike) -> bool:
    """Whether a folder holds a system that runs by itself.

    Raises:
        FileNotFoundError: No ``system.json``.
        ValueError: It is broken.
    """
    return read_description(folder)["type"] in TYPES


def check_type(kind: str, folder: Path) -> None:
    """Raises ValueError where a folder's type is no system by itself."""
    if kind == TWO_PASS:
        raise ValueError(
            f"{folder} must be a system by itself, but {TWO_PASS} is two of them; load "
            "the folder of the experts (the recipes' exp/mono), then call its "
            ".two_pass(finder) with a system that finds the language, for example "
            "Speech2Text.vanilla(backbone, languages)"
        )
    if kind not in TYPES:
        raise ValueError(
            f"type in {folder / DESCRIPTION} must be of {TYPES}, but got {kind!r}; was "
            "it written by a newer version?"
        )


def _build(backbone: Backbone, what: Mapping[str, Any], folder: Path) -> System:
    languages = what["languages"]
    if what["type"] == "single":
        return Single(languages, *what["experts"])
    if what["type"] == "experts":
        return Experts(languages)
    if what["type"] == "mole":
        system = MoLE(backbone, languages, **what["mole"])
        _load_weights(system, folder / MOLE_WEIGHTS)
        return system
    return System(languages)


def _load_weights(system: System, path: Path) -> None:
    try:
        system.load_state_dict(read_tensors(path)[0])
    except RuntimeError as error:
        raise ValueError(
            f"{path} must fit the languages and layers of {DESCRIPTION}, but does not: "
            f"{error}; train the system or copy its folder again"
        ) from error


def _save_backbone(backbone: Backbone, folder: Path) -> dict[str, str]:
    """Writes a fine-tuned Whisper with its tokenizer, in Hugging Face layout."""
    with atomic.folder(folder) as temp:
        hub.copy_texts(hub.resolve(backbone.name), temp)
        backbone.hf.save_pretrained(temp)
        for file in temp.glob("*.safetensors"):
            follow_umask(file)
    return {
        "name": folder.name,
        "sha256": hub.weights_sha256(backbone.hf),
        "base": backbone.name,
    }
