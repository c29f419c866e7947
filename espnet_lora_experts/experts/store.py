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
from peft.tuners.tuners_utils import check_target_module_exists
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from espnet_lora_experts.experts.bank import TARGETS, ExpertBank
from espnet_lora_experts.experts.layer import ExpertLinear

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
    """A temporary folder that takes the place of ``folder`` once it is whole."""
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=f".{folder.name}.", dir=folder.parent, ignore_cleanup_errors=True
    ) as work:
        temp = Path(work, "new")
        temp.mkdir()  # as open as the umask says; the one around it is the owner's
        yield temp
        if folder.exists():
            retired = Path(f"{work}.old")
            folder.rename(retired)
            temp.rename(folder)
            shutil.rmtree(retired)
        else:
            temp.rename(folder)


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes a safetensors file, whole or not at all, as open as the umask says.

    Args:
        path: Where to; an older file there is replaced.
        tensors: By their names, on any device.
        metadata: Strings for the file's header.
    """
    temp = path.with_name(f".{path.name}.{os.getpid()}")
    on_cpu = {key: x.detach().contiguous().cpu() for key, x in tensors.items()}
    try:
        save_file(on_cpu, temp, metadata={"format": "pt", **(metadata or {})})
        follow_umask(temp)
        os.replace(temp, path)
    finally:
        temp.unlink(missing_ok=True)


def follow_umask(path: Path) -> None:
    """Gives a file the mode of any new one; safetensors' own are the owner's only."""
    new = path.with_name(f"{path.name}.mode")
    new.touch()
    path.chmod(new.stat().st_mode)
    new.unlink()


@contextmanager
def open_tensors(path: Path) -> Iterator[safe_open]:
    """Opens a safetensors file and checks that it is whole.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is truncated or no safetensors file.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} must exist, but does not; is its folder whole?"
        )
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise ValueError(
            f"{path} must be a whole safetensors file, but got: {error}; train, copy "
            "or download it again"
        ) from error


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a safetensors file; see :func:`open_tensors`."""
    with open_tensors(path) as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        return tensors, file.metadata() or {}


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
    tensors = {PREFIX + key: weight for key, weight in bank.parameters_of(name)}
    config = LoraConfig(**bank.configs[name].to_dict())
    config.base_model_name_or_path = backbone
    config.inference_mode = True
    with replacing(folder) as temp:
        config.save_pretrained(str(temp))
        write_tensors(temp / WEIGHTS, tensors, metadata)


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
        ValueError: Another backbone, rank or target set, a target that runs without
            the bank's gate, a broken file, or a feature (DoRA, ``modules_to_save``,
            ...) that experts do not have.
    """
    config = _read_config(Path(folder))
    if config.target_modules:  # else PEFT's own choice for the model's type
        _check_targets(bank, config, folder)
    tensors, metadata = read_tensors(Path(folder) / WEIGHTS)
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


def _check_targets(bank: ExpertBank, config: LoraConfig, folder) -> None:
    """Raises where a target runs without the bank's gate.

    Those are what is no linear layer, and the output layer, whose weight is the token
    embedding's.
    """
    output = getattr(bank.model, "get_output_embeddings", lambda: None)()
    inside = tuple(f"{key}." for key in bank.layers)
    wrong = {
        key
        for key, module in bank.model.named_modules()
        if (module is output or not isinstance(module, nn.Linear | ExpertLinear))
        and not key.startswith(inside)
        and check_target_module_exists(config, key)
    }
    if wrong:
        raise ValueError(
            f"{folder} must target linear layers that run under the bank's gate, but "
            f"got {_some(wrong)}; train it again with target_modules such as "
            f"{', '.join(TARGETS)}"
        )


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
