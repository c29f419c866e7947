"""The bank: one frozen model, any number of LoRA experts, one gate in force."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from espnet_lora_experts.experts.gate import Gate
from espnet_lora_experts.experts.layer import ExpertLinear, Switch, adapter_name
from espnet_lora_experts.experts.product import forget_cast
from espnet_lora_experts.experts.turn import Turn

TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
"""Matrices with experts by default: the set that gives the paper's parameter counts."""


def lora_config(
    r: int,
    lora_alpha: int | None = None,
    target_modules: Sequence[str] | str = TARGETS,
) -> LoraConfig:
    """A PEFT configuration with the project's defaults.

    Args:
        r: Rank; the paper takes 64 for experts of Whisper-medium.
        lora_alpha: Scale is ``lora_alpha / r``; None means r, the paper's scale of 1.
        target_modules: PEFT's ``target_modules``.
    """
    targets = target_modules if isinstance(target_modules, str) else [*target_modules]
    return LoraConfig(
        r=r, lora_alpha=lora_alpha or r, target_modules=targets, lora_dropout=0.0
    )


class ExpertBank:
    """Experts in the linear layers of a model that is frozen from here on.

    Args:
        model: Any module with ``nn.Linear`` layers; its parameters are frozen.

    Attributes:
        turn: Held by the thread that uses the model where others may, too: gates and
            experts are the same for all threads.

    Example:
        >>> import torch
        >>> from espnet_lora_experts.experts.gate import one_hot
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 4))
        >>> bank = ExpertBank(model)
        >>> for name in ["es", "ru"]:
        ...     bank.add(name, lora_config(r=2, target_modules=["0"]))
        >>> with bank.using(one_hot(["es", "ru", "ru"])):
        ...     model(torch.ones(3, 4)).shape
        torch.Size([3, 4])
        >>> bank.train_only(["ru"])
        >>> [name for name, p in model.named_parameters() if p.requires_grad]
        ['0.lora_A.expert_ru.weight', '0.lora_B.expert_ru.weight']
    """

    def __init__(self, model: nn.Module):
        self.model = model.requires_grad_(False)
        self.switch = Switch()
        self.configs: dict[str, LoraConfig] = {}
        self.turn = Turn()

    @property
    def names(self) -> list[str]:
        """Names of the experts, in the order they were added."""
        return list(self.configs)

    @property
    def layers(self) -> dict[str, ExpertLinear]:
        """The layers that hold experts, by their name in the model."""
        return {
            key: module
            for key, module in self.model.named_modules()
            if isinstance(module, ExpertLinear)
        }

    def add(self, name: str, config: LoraConfig, seed: int | None = None) -> None:
        """Adds a fresh expert: A random, B zero, so that it changes nothing yet.

        Args:
            name: Its name, for example a language code.
            config: PEFT's configuration.
            seed: Seed of A; equal seeds give equal A. None draws from torch's state.

        Raises:
            ValueError: The name is taken or malformed, or no layer matches the targets.
        """
        self._check_new(name)
        config._register_custom_module({nn.Linear: ExpertLinear})
        with torch.random.fork_rng(enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            self._inject(name, config)
        self.configs[name] = config
        for key, layer in self.layers.items():
            layer.switch, layer.key = self.switch, key
        self.train_only(())

    def _check_new(self, name: str) -> None:
        if not name.replace("_", "").replace("-", "").isalnum():
            raise ValueError(
                f"an expert's name must be letters, digits, '-' and '_', got {name!r}"
            )
        if name in self.configs:
            raise ValueError(f"expert must be new, but got {name!r}; has: {self.names}")

    def _inject(self, name: str, config: LoraConfig) -> None:
        try:
            with warnings.catch_warnings():  # that the model has adapters is our intent
                warnings.filterwarnings("ignore", "Already found a `peft_config`")
                inject_adapter_in_model(config, self.model, adapter_name(name))
        except ValueError as error:
            raise ValueError(f"expert {name!r} cannot be added: {error}") from error

    def drop(self, name: str) -> None:
        """Removes an expert from every layer; what trains of the others stays so."""
        with self.turn:
            self.require([name])
            del self.configs[name]
            trained = [p for p in self.model.parameters() if p.requires_grad]
            self._delete(adapter_name(name))
            self.model.requires_grad_(False)  # PEFT makes another one train
            for parameter in trained:
                parameter.requires_grad_(True)

    def _delete(self, adapter: str) -> None:
        with warnings.catch_warnings():  # that it was active is no matter
            warnings.filterwarnings("ignore", "Adapter .* was active")
            for layer in self.layers.values():
                if adapter in layer.lora_A:
                    layer.delete_adapter(adapter)

    def require(self, names: Iterable[str]) -> None:
        """Raises ValueError unless every name is an expert of this bank."""
        unknown = sorted(set(names) - set(self.configs))
        if unknown:
            raise ValueError(f"experts must be of {self.names}, but got {unknown}")

    def parameters_of(self, name: str) -> Iterator[tuple[str, nn.Parameter]]:
        """``(layer key + '.lora_A.weight', parameter)`` of one expert, A before B."""
        self.require([name])
        for key, layer in self.layers.items():
            for matrix, adapters in ("A", layer.lora_A), ("B", layer.lora_B):
                if adapter_name(name) in adapters:
                    weight = cast(nn.Parameter, adapters[adapter_name(name)].weight)
                    yield f"{key}.lora_{matrix}.weight", weight

    def train_only(self, names: Iterable[str]) -> None:
        """Freezes the whole model but the named experts."""
        self.model.requires_grad_(False)
        for name in names:
            for _, parameter in self.parameters_of(name):
                parameter.requires_grad_(True)

    @contextmanager
    def using(self, gate: Gate) -> Iterator[None]:
        """Puts a gate in force for the forwards inside the ``with`` block."""
        before, self.switch.gate = self.switch.gate, gate
        try:
            yield
        finally:
            self.switch.gate = before

    @contextmanager
    @torch.no_grad()
    def folded(self, gate_of: Callable[[str], Gate]) -> Iterator[None]:
        """Folds gates over all rows into the weights: decoding then costs no more.

        Inside the block the folded layers ignore the gate in force, and it is this
        thread's turn. Afterwards the weights are the same bits as before.

        Args:
            gate_of: Takes a layer's key to its gate.

        Raises:
            ValueError: A gate does not treat all rows alike.
        """
        kept: dict[str, torch.Tensor] = {}
        with self.turn:
            layers = self.layers
            try:
                for key, layer in layers.items():
                    delta_OD = layer.delta_OD(gate_of(key))
                    if key not in self.switch.folded and delta_OD is not None:
                        W_OD = layer.weight.data + delta_OD
                        kept[key] = _replace_weight(layer, W_OD)
                        self.switch.folded.add(key)
                yield
            finally:
                for key, W_OD in kept.items():
                    _replace_weight(layers[key], W_OD)
                    self.switch.folded.discard(key)


def _replace_weight(layer: ExpertLinear, weight_OD: torch.Tensor) -> torch.Tensor:
    """Puts another weight into a layer's base; returns the one that was there."""
    base = cast(nn.Linear, layer.get_base_layer())
    before, base.weight.data = base.weight.data, weight_OD
    forget_cast(base)
    return before


def count_parameters(module: nn.Module) -> tuple[int, int]:
    """Trainable and total number of parameters; logs both."""
    total = sum(p.numel() for p in module.parameters())
    trainable = sum(p.numel() for p in module.parameters() if p.requires_grad)
    logging.info(
        f"trainable parameters: {trainable:,} of {total:,} ({trainable / total:.2%})"
    )
    return trainable, total
