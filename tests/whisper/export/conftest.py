"""Trained systems in folders, on a random Whisper that takes 30 s."""

import pytest
import torch

from espnet_lora_experts.whisper.backbone import Backbone
from espnet_lora_experts.whisper.folder import load_system, save_system
from espnet_lora_experts.whisper.systems import (
    Experts,
    MoLE,
    Single,
    System,
    decode,
    encode,
)

LANGS = ["es", "ru", "ja"]
IDS = torch.arange(8).reshape(4, 2)


@pytest.fixture(scope="session")
def saved(folder_30s, add_random, tmp_path_factory):
    """Folders of a pooled LoRA, of experts, a MoLE, and a fine-tuned Whisper."""
    path = tmp_path_factory.mktemp("trained")
    backbone = Backbone.from_pretrained(str(folder_30s))
    add_random(backbone.bank, [*LANGS, "multi"])
    torch.manual_seed(0)
    systems = {
        "multi": Single(LANGS, "multi"),
        "mono": Experts(LANGS),
        "mole": MoLE(backbone, LANGS, 1, pooling="attentive"),
    }
    for name, system in systems.items():
        save_system(path / name, backbone, system, {"steps": 7})
    tuned = Backbone.from_pretrained(str(folder_30s))
    for parameter in tuned.hf.model.decoder.parameters():
        parameter.data.mul_(1.1)
    save_system(path / "full", tuned, System(LANGS))
    return path


@pytest.fixture(params=["multi", "multi-ru", "mono-ru", "mole-ja", "full"])
def one(request, saved):
    """A system that is one Whisper: backbone, system, language if it needs one."""
    name, _, lang = request.param.partition("-")
    backbone, system, _ = load_system(saved / name)
    return backbone, system, lang or None


@pytest.fixture(scope="session")
def logits():
    """What a system says of given features and tokens, under its gates."""

    @torch.no_grad()
    def logits(backbone, system, mel, lang=None):
        route = [lang] * len(mel[0]) if lang else None
        encoded = encode(backbone, system, *mel, route)
        return backbone.logits(decode(backbone, system, encoded, IDS))

    return logits
