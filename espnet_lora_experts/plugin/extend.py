"""Adds languages: a training that starts from a finished system of fewer of them.

The old system's folder is only read. Names of dimensions: I weight matrices, M old and
N all languages.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from peft import LoraConfig
from torch import Tensor

from espnet_lora_experts.experts.bank import ExpertBank
from espnet_lora_experts.experts.store import (
    PREFIX,
    WEIGHTS,
    load_expert,
    read_tensors,
)
from espnet_lora_experts.whisper.backbone import Backbone
from espnet_lora_experts.whisper.description import read_description
from espnet_lora_experts.whisper.folder import MOLE_WEIGHTS, describe
from espnet_lora_experts.whisper.systems import MoLE

LEARNED = ("merged_layers", "combination", "pooling")
"""Options of a MoLE that its tensors are learned for."""
SAME = ("r", "lora_alpha", "target_modules")
"""What a student keeps: fields of its PEFT configuration."""


@torch.no_grad()
def extend_mole(
    backbone: Backbone, mole: MoLE, folder: str, new_share: float | None = None
) -> None:
    """Gives a fresh MoLE what another one learned for some of its languages.

    Merging weights keep their ratios, and old languages their logits. A new language's
    class starts as the mean of the old ones, which is never the largest: until the
    first step no utterance changes its route.

    Args:
        backbone: Whose bank holds the experts.
        mole: The fresh system of all languages.
        folder: Of the old one.
        new_share: See :meth:`~.experts.fusion.Fusion.start_from`.

    Raises:
        ValueError: No MoLE of fewer languages, of the same backbone, options and
            experts.
    """
    what = _read_old(folder, "mole", mole.languages, backbone)
    own, old = (
        {name: options.get(name) for name in LEARNED}
        for options in (describe(backbone, mole)["mole"], what["mole"])
    )
    if own != old:
        raise ValueError(
            f"extend must be a MoLE with the same options, {own}, but {folder} has "
            f"{old}; give these in model_conf"
        )
    _require_experts(backbone.bank, folder, what["experts"])
    state, _ = read_tensors(Path(folder, MOLE_WEIGHTS))
    places = [mole.languages.index(code) for code in what["languages"]]
    V_IM = state.pop("fusion.V_IN")
    if len(V_IM) != len(mole.fusion.index):
        raise ValueError(
            f"experts must be in the {len(V_IM)} merged matrices of {folder}, but are "
            f"in {len(mole.fusion.index)}; train the new one with the old ones' "
            "target_modules"
        )
    mole.fusion.start_from(V_IM, places, new_share)
    mole.router.start_from(
        {key.removeprefix("router."): value for key, value in state.items()}, places
    )


def extend_student(
    backbone: Backbone,
    name: str,
    folder: str,
    languages: Sequence[str],
    config: LoraConfig,
) -> None:
    """Adds a student that starts exactly as another one of fewer languages ended.

    Args:
        backbone: Whose bank gets it.
        name: Its name there.
        folder: Of the old student's system.
        languages: All languages of the new one.
        config: What the new one is to be.

    Raises:
        ValueError: No system of one LoRA and fewer languages, or another backbone,
            rank, scale or targets.
    """
    what = _read_old(folder, "single", languages, backbone)
    [place] = what["experts"].values()
    load_expert(backbone.bank, name, Path(folder, place), backbone.sha256)
    given = backbone.bank.configs[name]
    for field in SAME:
        old, new = getattr(given, field), getattr(config, field)
        if old != new:
            raise ValueError(
                f"extend must be a student of {field}: {new}, but {folder} has {old}; "
                f"give {field}: {old} in model_conf"
            )


def _read_old(folder: str, kind: str, languages: Sequence[str], backbone) -> dict:
    """The description of a system that can be extended to some languages."""
    what = read_description(folder)
    if what["type"] != kind:
        raise ValueError(
            f"extend must be a system of type {kind}, but {folder} is of {what['type']}"
        )
    old = what["languages"]
    if not set(old) < set(languages):
        raise ValueError(
            f"languages must be those of {folder}, {old}, and more, but got "
            f"{list(languages)}"
        )
    if (sha256 := what["backbone"]["sha256"]) != backbone.sha256:
        raise ValueError(
            f"extend must be a system of backbone {backbone.sha256[:12]}, but {folder} "
            f"is of {sha256[:12]}; give the backbone it was trained on"
        )
    return what


def _require_experts(bank: ExpertBank, folder: str, places: dict[str, str]) -> None:
    """Raises unless the bank has the very experts that were fused there."""
    for code, place in places.items():
        fused, _ = read_tensors(Path(folder, place, WEIGHTS))
        own = dict(bank.parameters_of(code))
        if not _equal({PREFIX + key: weight for key, weight in own.items()}, fused):
            raise ValueError(
                f"experts must be those that were fused in {folder}, but {code}'s is "
                f"another one; give {Path(folder, place)}, or fuse all anew"
            )


def _equal(ours: dict[str, Tensor], others: dict[str, Tensor]) -> bool:
    return ours.keys() == others.keys() and all(
        torch.equal(weight.cpu(), others[key]) for key, weight in ours.items()
    )
