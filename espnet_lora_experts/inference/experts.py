"""The experts of a recognizer: list, add, drop, switch, mix, fold."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING

import torch

from espnet_lora_experts.experts.bank import ExpertBank
from espnet_lora_experts.experts.store import load_expert
from espnet_lora_experts.whisper import languages
from espnet_lora_experts.whisper.backbone import Backbone
from espnet_lora_experts.whisper.systems import Experts, Mixture, Single, System

if TYPE_CHECKING:
    from espnet_lora_experts.inference.speech2text import Speech2Text


class ExpertView(Collection[str]):
    """The experts in a recognizer's Whisper, and which of them it runs.

    Iterating gives their names. All is about the recognizer that it came from; another
    one on the same backbone sees added and dropped experts too, but keeps its gates.

    Args:
        speech2text: The recognizer.
    """

    def __init__(self, speech2text: Speech2Text):
        self._speech2text = speech2text

    @property
    def _bank(self) -> ExpertBank:
        return self._speech2text.backbone.bank

    def __iter__(self) -> Iterator[str]:
        return iter(self._bank.names)

    def __len__(self) -> int:
        return len(self._bank.names)

    def __contains__(self, name: object) -> bool:
        return name in self._bank.names

    def __repr__(self) -> str:
        system = self._speech2text.system
        used = getattr(system, "weights", None) or system.experts
        return f"<experts {self._bank.names}; {type(system).__name__} of {used}>"

    def add(self, name: str, folder: str | os.PathLike) -> None:
        """Adds an expert; where each language runs its own, a language with it.

        Args:
            name: Its name here. The code of a language lets that language be told, once
                the expert is in use.
            folder: A PEFT adapter folder of a LoRA of this Whisper.

        Raises:
            FileNotFoundError: A file of the folder is missing.
            ValueError: The name is taken, or the expert is not one of this Whisper; all
                stays as it was.
        """
        load_expert(self._bank, name, folder, self._speech2text.backbone.sha256)
        loaded = self._speech2text.loaded
        if type(loaded) is Experts and name in languages.TABLE:
            loaded.languages.append(name)

    def drop(self, name: str) -> None:
        """Removes an expert; where each language runs its own, its language with it.

        Raises:
            ValueError: There is none of this name, or a system of a single expert, a
                mixture or a MoLE needs it: the one in use or the one loaded.
        """
        with self._bank.turn:
            self._bank.require([name])
            self._check_idle(name)
            self._bank.drop(name)
            loaded = self._speech2text.loaded
            if name in loaded.languages and type(loaded) is Experts:
                loaded.languages.remove(name)

    def _check_idle(self, name: str) -> None:
        for system in self._speech2text.system, self._speech2text.loaded:
            if type(system) is not Experts and name in system.experts:
                raise ValueError(
                    f"an expert must not be in use to be dropped, but {name!r} is, in "
                    f"{type(system).__name__} of {system.experts}; use() another one"
                    " first, or load a system without it"
                )

    def use(self, name: str | None = None) -> None:
        """Switches to one expert for all speech; None: to the system as it was loaded.

        Raises:
            ValueError: There is no such expert.
        """
        speech2text = self._speech2text
        if name is None:
            speech2text.system = speech2text.loaded
            return
        self._bank.require([name])
        speech2text.system = Single(self._languages([name]), name)

    def mix(self, weights: Mapping[str, float]) -> None:
        """Switches to a weighted sum of experts' weight changes for all speech.

        Args:
            weights: Weight of each expert, ``{"es": 0.7, "ro": 0.3}``; they need not
                sum to 1.

        Raises:
            ValueError: No expert, an unknown one, or a weight that is no number.
        """
        self._bank.require(weights)
        if not weights or not all(map(math.isfinite, weights.values())):
            raise ValueError(
                f"weights must be a finite number for each expert, but got {weights}"
            )
        self._speech2text.system = Mixture(self._languages(weights), weights)

    def fold(self) -> Speech2Text:
        """A recognizer with the gates in force folded into a Whisper of its own.

        Its ``backbone.hf`` is a plain Whisper without any expert, which transformers
        saves and runs. This recognizer stays as it is.

        Raises:
            ValueError: The gates differ by language, so that no one Whisper has them.
        """
        speech2text = self._speech2text
        backbone = speech2text.backbone
        with backbone.bank.turn:
            system = speech2text.system
            if system.routed:
                raise ValueError(
                    "a system must treat all languages alike to be folded, but got "
                    f"{type(system).__name__}; use() one expert or mix() some first"
                )
            with backbone.bank.folded(partial(system.folding, lang=None)):
                hf = _without_experts(backbone)
        folded = Backbone(hf, name=backbone.name).to(backbone.hf.device)
        return speech2text.with_system(System(system.languages), folded)

    def _languages(self, names: Collection[str]) -> list[str]:
        """The loaded system's languages, and those of other experts."""
        known = self._speech2text.loaded.languages
        new = [name for name in names if name in languages.TABLE]
        return list(dict.fromkeys([*known, *new]))


def _without_experts(backbone: Backbone):
    """A copy of its Whisper for transformers: its weights, plain linear layers."""
    state = {key: weight.clone() for key, weight in backbone.plain_state().items()}
    with torch.device("meta"):
        plain = type(backbone.hf)(copy.deepcopy(backbone.config))
    plain.load_state_dict(state, assign=True)
    plain.tie_weights()
    plain.generation_config = copy.deepcopy(backbone.hf.generation_config)
    return plain
