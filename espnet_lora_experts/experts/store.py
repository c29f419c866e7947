"""An expert on disk: a PEFT adapter folder, which plain ``peft`` loads as well.

``adapter_config.json`` and ``adapter_model.safetensors``, with the backbone's hash in
the weights' metadata, so that an expert cannot end up in another Whisper unnoticed.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import LoraConfig
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from espnet_lora_experts.experts.bank import ExpertBank

PREFIX = "base_model.model."
WEIGHTS = "adapter_model.safetensors"
UNSUPPORTED = {
    "use_dora": "DoRA",
    "modules_to_save": "modules_to_save",
    "lora_bias": "a bias in B",
    "layer_replication": "layer_replication",
    "trainable_token_indices": "trainable_token_indices",
    "megatron_config": "Megatron layers",
    "target_parameters": "target_parameters",
    "alora_invocation_tokens": "activated LoRA",
    "arrow_config": "Arrow",
    "use_qalora": "QALoRA",
    "use_bdlora": "BD-LoRA",
    "kasa_config": "KaSA",
    "monteclora_config": "MonteCLoRA",
    "velora_config": "VeLoRA",
}
KEEP_BASE = (True, False, "gaussian", "eva", "orthogonal")
"""Values of ``init_lora_weights`` that leave the backbone's weights as they are."""


@contextmanager
def replacing(folder: str | os.PathLike) -> Iterator[Path]:
    """A temporary sibling that takes the place of ``folder`` once it is whole."""
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temp = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    temp.chmod(0o755)
    try:
        yield temp
        if folder.exists():
            retired = temp.with_name(temp.name + ".old")
            folder.rename(retired)
            temp.rename(folder)
            shutil.rmtree(retired)
        else:
            temp.rename(folder)
    finally:
        shutil.rmtree(temp, ignore_errors=True)


def save_expert(
    bank: ExpertBank,
    name: str,
    folder: str | os.PathLike,
    backbone: str = "",
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes one expert as a PEFT adapter folder, whole or not at all.

    Args:
        bank: Where it lives.
        name: Its name in the bank.
        folder: Where to; an older expert there is replaced.
        backbone: ``base_model_name_or_path`` for PEFT.
        metadata: Strings for the weights file, for example ``backbone_sha256``.
    """
    tensors = {
        PREFIX + key: parameter.detach().contiguous().cpu()
        for key, parameter in bank.parameters_of(name)
    }
    config = LoraConfig(**bank.configs[name].to_dict())
    config.base_model_name_or_path = backbone
    config.inference_mode = True
    with replacing(folder) as temp:
        config.save_pretrained(str(temp))
        save_file(
            tensors, temp / WEIGHTS, metadata={"format": "pt", **(metadata or {})}
        )
        (temp / WEIGHTS).chmod(0o644)  # safetensors writes for the owner only


def load_expert(
    bank: ExpertBank,
    name: str,
    folder: str | os.PathLike,
    backbone_sha256: str | None = None,
) -> None:
    """Adds an expert from a PEFT adapter folder; the bank is unchanged on any error.

    Args:
        bank: Where to add it.
        name: Its name there.
        folder: The folder, ours or any PEFT LoRA of the same model.
        backbone_sha256: Hash of the bank's model; checked when the file names one.

    Raises:
        FileNotFoundError: A file of the folder is missing.
        ValueError: Another backbone, rank or target set, a broken file, or a feature
            (DoRA, ``modules_to_save``, ...) that experts do not have.
    """
    config = _read_config(Path(folder))
    tensors, metadata = _read_weights(Path(folder) / WEIGHTS)
    written_for = metadata.get("backbone_sha256")
    if backbone_sha256 and written_for and written_for != backbone_sha256:
        raise ValueError(
            f"{folder} must be an expert of the backbone {backbone_sha256[:12]}, but "
            f"it was trained on {written_for[:12]}; give the backbone it was trained on"
        )
    bank.add(name, config)
    try:
        _fill(dict(bank.parameters_of(name)), tensors, folder)
    except ValueError:
        bank.drop(name)
        raise


def _read_config(folder: Path) -> LoraConfig:
    path = folder / "adapter_config.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} must be a PEFT adapter folder, but has no adapter_config.json"
        )
    try:
        config = LoraConfig.from_pretrained(str(folder))
    except (TypeError, ValueError) as error:  # ValueError: JSON
        raise ValueError(f"{path} must be PEFT's LoRA config: {error}") from error
    if not isinstance(config, LoraConfig):
        raise ValueError(f"{path} must be of a LoRA, but got {config.peft_type}")
    for field, what in UNSUPPORTED.items():
        if getattr(config, field, None):
            raise ValueError(
                f"{folder} must be a plain LoRA, but uses {what} ({field}); merge it "
                "into its backbone or train it again without"
            )
    if config.bias != "none":
        raise ValueError(f"{folder} must have bias: none, but got {config.bias!r}")
    if config.init_lora_weights not in KEEP_BASE:
        raise ValueError(
            f"{folder} must run on an unchanged backbone, but its init_lora_weights: "
            f"{config.init_lora_weights} changed it; convert it with PEFT's "
            "path_initial_model_for_weight_conversion"
        )
    config.inference_mode = False
    config.init_lora_weights = True
    return config


def _read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} must exist, but does not; is the expert whole?"
        )
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            return tensors, file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path} must be a whole safetensors file: {error}") from error


@torch.no_grad()
def _fill(parameters: Mapping[str, Tensor], tensors: Mapping[str, Tensor], folder):
    given = {key.removeprefix(PREFIX): tensor for key, tensor in tensors.items()}
    missing, unexpected = set(parameters) - set(given), set(given) - set(parameters)
    if missing or unexpected:
        raise ValueError(
            f"{folder} must hold this backbone's LoRA, but lacks {_some(missing)} and "
            f"has besides {_some(unexpected)}"
        )
    for key, parameter in parameters.items():
        if parameter.shape != given[key].shape:
            raise ValueError(
                f"{folder}: {key} must be {tuple(parameter.shape)} for this backbone "
                f"and adapter_config.json's r, but got {tuple(given[key].shape)}"
            )
    for key, parameter in parameters.items():
        parameter.copy_(given[key])


def _some(keys: set[str]) -> str:
    listed = ", ".join(sorted(keys)[:3]) or "nothing"
    return f"{listed} and {len(keys) - 3} more" if len(keys) > 3 else listed
