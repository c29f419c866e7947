"""Writer of a system with an expert for each language: experts, router, backbone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from espnet_lora_experts.whisper import hub
from espnet_lora_experts.whisper.backbone import Backbone
from espnet_lora_experts.whisper.description import read_description, write_description
from espnet_lora_experts.whisper.folder import describe, save_system
from espnet_lora_experts.whisper.systems import System

BACKBONE = "backbone"


def write(
    folder: Path,
    backbone: Backbone,
    system: System,
    what: Mapping[str, Any],
    with_backbone: bool,
) -> None:
    """Writes PEFT folders of the experts, a MoLE's weights, and ``system.json``.

    ``Speech2Text.from_pretrained`` loads the folder.

    Args:
        folder: An empty folder.
        backbone: Whose bank holds the experts.
        system: The gates.
        what: The system's description; its facts, for example steps, are kept.
        with_backbone: Add the backbone, so that nothing else is needed.
    """
    own = {*describe(backbone, system), "experts"}
    facts = {key: value for key, value in what.items() if key not in own}
    save_system(folder, backbone, system, facts)
    if with_backbone:
        (folder / BACKBONE).mkdir()
        hub.copy_whisper(hub.resolve(backbone.name), folder / BACKBONE)
        named = {"name": BACKBONE, "sha256": backbone.sha256}
        write_description(folder, {**read_description(folder), "backbone": named})
