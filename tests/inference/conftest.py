"""Systems on disk and clips, all random."""

import numpy as np
import pytest
import torch

from espnet_lora_experts.inference import Speech2Text
from espnet_lora_experts.whisper.backbone import Backbone
from espnet_lora_experts.whisper.folder import save_system
from espnet_lora_experts.whisper.systems import Experts, MoLE, Single

LANGS = ["es", "ru", "ja"]


@pytest.fixture(scope="module")
def clips():
    """Five clips whose order is not that of their lengths."""
    rng = np.random.RandomState(0)
    lengths = (9000, 24000, 4000, 16000, 12345)
    return [rng.uniform(-0.5, 0.5, n).astype(np.float32) for n in lengths]


@pytest.fixture(scope="module")
def whisper(folder_30s):
    return Backbone.from_pretrained(str(folder_30s))


@pytest.fixture(scope="module")
def folders(folder_30s, add_random, tmp_path_factory):
    """Exported systems."""
    backbone = Backbone.from_pretrained(str(folder_30s))
    add_random(backbone.bank, [*LANGS, "multi"])
    torch.manual_seed(0)
    systems = {
        "multi": Single(LANGS, "multi"),
        "mono": Experts(LANGS),
        "mole": MoLE(backbone, LANGS, 1),
        "soft": MoLE(backbone, LANGS, 1, top_k=2),
    }
    path = tmp_path_factory.mktemp("systems")
    for name, system in systems.items():
        save_system(path / name, backbone, system)
    return {name: path / name for name in systems}


@pytest.fixture
def load(whisper, folders):
    """A recognizer of a system."""

    def load(name, **options):
        if name == "vanilla":
            return Speech2Text.vanilla(whisper, LANGS, **options)
        return Speech2Text.from_pretrained(folders[name], **options)

    return load
