"""An expert on disk: a PEFT adapter folder, which plain ``peft`` loads as well.

``adapter_config.json`` and ``adapter_model.safetensors``, with the backbone's hash in
the weights' metadata, so that an expert cannot end up in another Whisper unnoticed. A
LoRA that others trained with PEFT loads as well, if it is a LoRA and nothing besides.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import LoraConfig
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from espnet_lora_experts import atomic
from espnet_lora_experts.experts.adapter import (
    CONFIG,
    check_ranks,
    check_targets,
    read_config,
    some,
)
from espnet_lora_experts.experts.bank import ExpertBank
from espnet_lora_experts.experts.checkpoint import load_tensors

PREFIX = "base_model.model."
WEIGHTS = "adapter_model.safetensors"
PICKLE = "adapter_model.bin"
README = "README.md"


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes a safetensors file, whole or not at all, as open as the umask says.

    Args:
        path: Where to; an older file there is replaced.
        tensors: By their names, on any device.
        metadata: Strings for the file's header.
    """
    on_cpu = {key: x.detach().contiguous().cpu() for key, x in tensors.items()}
    with atomic.file(path) as temp:
        save_file(on_cpu, temp, metadata={"format": "pt", **(metadata or {})})
        follow_umask(temp)


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
        tensors = {key: file.get_tensor(key) for key in file.keys()}
        return tensors, file.metadata() or {}


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file; {} where there is no file."""
    if not path.is_file():
        return {}
    with open_tensors(path) as file:
        return file.metadata() or {}


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
        folder: Where to; an older expert there is replaced, but for its README.md.
        backbone: ``base_model_name_or_path`` for PEFT.
        metadata: Strings for the weights file, for example ``backbone_sha256``.
    """
    tensors = {PREFIX + key: weight for key, weight in bank.parameters_of(name)}
    config = LoraConfig(**bank.configs[name].to_dict())
    config.base_model_name_or_path = backbone
    config.inference_mode = True
    with atomic.folder(folder) as temp:
        config.save_pretrained(str(temp))
        write_tensors(temp / WEIGHTS, tensors, metadata)
        if (readme := Path(folder, README)).is_file():
            shutil.copy(readme, temp)


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
    config = read_config(Path(folder))
    if config.target_modules:  # else PEFT's own choice for the model's type
        check_targets(bank, config, folder)
    tensors, metadata = _read_weights(Path(folder))
    check_ranks(config, tensors, folder)
    written_for = metadata.get("backbone_sha256")
    if backbone_sha256 and written_for and written_for != backbone_sha256:
        raise ValueError(
            f"{folder} must be an expert of the backbone {backbone_sha256[:12]}, but "
            f"it was trained on {written_for[:12]}; give the backbone it was trained on"
        )
    with bank.turn:  # nobody runs an expert that is not filled yet
        try:
            bank.add(name, config)
        except ValueError as error:
            raise ValueError(f"{folder}: {error}") from error
        try:
            _fill(dict(bank.parameters_of(name)), tensors, folder, config)
        except ValueError:
            bank.drop(name)
            raise


def _read_weights(folder: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """An adapter's tensors and metadata; older PEFT wrote a pickle without the latter.

    The pickle is read by :mod:`.checkpoint`, which runs no code.
    """
    path = folder / PICKLE
    if not path.is_file() or (folder / WEIGHTS).is_file():
        return read_tensors(folder / WEIGHTS)
    return load_tensors(path), {}


@torch.no_grad()
def _fill(
    parameters: Mapping[str, Tensor],
    tensors: Mapping[str, Tensor],
    folder: str | os.PathLike,
    config: LoraConfig,
) -> None:
    given = {key.removeprefix(PREFIX): tensor for key, tensor in tensors.items()}
    trained_on = f"it was trained on {config.base_model_name_or_path or 'no name'}"
    for key in (key for key in parameters if key in given):
        if given[key].dim() != 2:
            raise ValueError(
                f"{folder}: {key} must be a matrix, but is {tuple(given[key].shape)}"
            )
        width = 1 if "lora_A" in key else 0
        own, other = parameters[key].shape[width], given[key].shape[width:][:1]
        if other != (own,):
            raise ValueError(
                f"{folder} must be an expert of a backbone of this size, but {key} is "
                f"{tuple(given[key].shape)} where the layer is {own} wide; "
                f"{trained_on}, give that backbone"
            )
    missing, unexpected = set(parameters) - set(given), set(given) - set(parameters)
    if missing or unexpected:
        raise ValueError(
            f"{folder} must hold this backbone's LoRA, but lacks {some(missing)} and "
            f"has besides {some(unexpected)}; {trained_on}"
        )
    for key, parameter in parameters.items():
        if parameter.shape != given[key].shape:
            raise ValueError(
                f"{folder}: {key} must be {tuple(parameter.shape)} for "
                f"{CONFIG}'s r, but got {tuple(given[key].shape)}"
            )
    for key, parameter in parameters.items():
        parameter.copy_(given[key])
