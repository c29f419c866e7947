"""Systems: who gets which expert in which layer. Each is one gate per layer.

Names of dimensions: B batch, P encoder positions, U text positions, D width,
N languages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from espnet_lora_experts.experts.fusion import Fusion
from espnet_lora_experts.experts.gate import (
    VANILLA,
    Factors,
    Gate,
    Term,
    everywhere,
    fused,
)
from espnet_lora_experts.experts.layer import ExpertLinear
from espnet_lora_experts.whisper.backbone import Backbone
from espnet_lora_experts.whisper.route import Route, gate_of, step_gate
from espnet_lora_experts.whisper.router import Router


class System(nn.Module):
    """A choice of gates. The base class is vanilla Whisper: no expert anywhere.

    Attributes:
        languages: The target languages.
        routed: Whether the gates depend on the utterance's language.
        soft: Whether they are others where the language is found than where it is told.
    """

    routed = False
    soft = False

    def __init__(self, languages: Sequence[str]):
        super().__init__()
        self.languages = list(languages)

    @property
    def experts(self) -> list[str]:
        """Names of the experts that the gates give."""
        return []

    def encoder_gate(self, layer: int, route: Route | None) -> Gate:
        """The gate of one encoder layer."""
        return VANILLA

    def decoder_gate(self, route: Route | None) -> Gate:
        """The gate of every decoder layer."""
        return VANILLA

    def step_gate(self, route: Route | None) -> Callable[[Route | None], Gate]:
        """The decoder's gate where every row is one position: takes the rows' route.

        Args:
            route: The languages of all rows that may come.
        """
        return self.decoder_gate

    def find_route(self, layer: int, x_BPD: Tensor, valid_BP: Tensor) -> Tensor | None:
        """Language logits, (B, N), when this layer's input is what the router reads."""
        return None

    def folding(self, key: str, lang: str | None) -> Gate:
        """What can be folded into one weight for a batch in one language.

        Args:
            key: The weight's layer, as in :attr:`ExpertBank.layers`.
            lang: The language of all rows, if known.
        """
        return VANILLA


class Mixture(System):
    r"""The same weighted sum of experts for all utterances: one fixed change of weight.

    .. math:: W + \sum_e w_e B_e A_e

    Args:
        languages: The target languages.
        weights: Weight of each expert; they need not sum to 1.
    """

    def __init__(self, languages: Sequence[str], weights: Mapping[str, float]):
        super().__init__(languages)
        self.weights = dict(weights)
        self.gate = tuple(
            Term(partial(_weighted, name, weight)) for name, weight in weights.items()
        )

    @property
    def experts(self) -> list[str]:
        return list(self.weights)

    def encoder_gate(self, layer: int, route: Route | None) -> Gate:
        return self.gate

    def decoder_gate(self, route: Route | None) -> Gate:
        return self.gate

    def folding(self, key: str, lang: str | None) -> Gate:
        return self.gate


def _weighted(name: str, weight: float, layer: ExpertLinear) -> Factors | None:
    pair = layer.factors(name)
    return pair if pair is None or weight == 1 else (pair[0], weight * pair[1])


class Single(Mixture):
    """One adapter for all: the pooled LoRA, the distilled student."""

    def __init__(self, languages: Sequence[str], expert: str):
        super().__init__(languages, {expert: 1.0})
        self.expert = expert


class Experts(System):
    """Each utterance runs the expert of its language; the language must be known."""

    routed = True

    @property
    def experts(self) -> list[str]:
        return self.languages

    def encoder_gate(self, layer: int, route: Route | None) -> Gate:
        return gate_of(route)

    def decoder_gate(self, route: Route | None) -> Gate:
        return gate_of(route)

    def step_gate(self, route: Route | None) -> Callable[[Route | None], Gate]:
        return step_gate(route)

    def folding(self, key: str, lang: str | None) -> Gate:
        return VANILLA if lang is None else everywhere(lang)


class MoLE(Experts):
    """LoRA MoLE: merged lower encoder layers, a router, then one language's expert.

    Source: https://arxiv.org/abs/2506.21555, Section 2.2.

    Args:
        backbone: Whose bank holds the experts, one for each language, by its code.
        languages: The N languages.
        merged_layers: L1, the number of merged encoder layers, 1 to all of them.
        combination: ``factor`` (the paper's) or ``delta`` (exact).
        pooling: The router's.
        top_k: Where the language is found: 1 runs the most probable language's expert
            (the paper's); K the sum of the K most probable, weighted by the router. The
            language's token is the most probable one's.

    Raises:
        ValueError: ``merged_layers`` or ``top_k`` out of range, or a language without
            an expert.
    """

    def __init__(
        self,
        backbone: Backbone,
        languages: Sequence[str],
        merged_layers: int,
        combination: str = "factor",
        pooling: str = "mean",
        top_k: int = 1,
    ):
        super().__init__(languages)
        depth = backbone.encoder_layers
        if not 1 <= merged_layers <= depth:
            raise ValueError(
                f"merged_layers must be 1 to {depth} (encoder layers), "
                f"but got {merged_layers}"
            )
        backbone.bank.require(languages)
        self.merged_layers = merged_layers
        merged = tuple(f"model.encoder.layers.{i}." for i in range(merged_layers))
        keys = [key for key in backbone.bank.layers if key.startswith(merged)]
        self.fusion = Fusion(languages, keys, combination)
        self.router = Router(backbone.config.d_model, self.languages, pooling)
        self.top_k = top_k

    @property
    def top_k(self) -> int:
        """Experts that an utterance gets where its language is found."""
        return self._top_k

    @top_k.setter
    def top_k(self, top_k: int) -> None:
        if not 1 <= top_k <= len(self.languages):
            raise ValueError(
                f"top_k must be 1 to {len(self.languages)} (languages), but got {top_k}"
            )
        self._top_k = top_k

    @property
    def soft(self) -> bool:
        return self.top_k > 1

    def route(self, logits_BN: Tensor) -> Route:
        """Whom the router's logits, (B, N), give each row to."""
        if self.top_k == 1:
            return self.router.route(logits_BN)
        return self.router.shares(logits_BN, self.top_k)

    def encoder_gate(self, layer: int, route: Route | None) -> Gate:
        if layer < self.merged_layers:
            return fused(self.fusion)
        return super().encoder_gate(layer, route)

    def find_route(self, layer: int, x_BPD: Tensor, valid_BP: Tensor) -> Tensor | None:
        return self.router(x_BPD, valid_BP) if layer == self.merged_layers else None

    def folding(self, key: str, lang: str | None) -> Gate:
        merged = key in self.fusion.index
        return fused(self.fusion) if merged else super().folding(key, lang)


@dataclass
class Encoded:
    """What the encoder found out about a batch.

    Attributes:
        hidden_BPD: Encoder states after the last norm, (B, P, D).
        valid_BP: True at valid positions, (B, P).
        route: The languages of each row, given or found; None if neither.
        lid_logits_BN: The router's logits, (B, N); None without a router.
    """

    hidden_BPD: Tensor
    valid_BP: Tensor
    route: Route | None
    lid_logits_BN: Tensor | None = None


def join(parts: Sequence[Encoded]) -> Encoded:
    """Batches as one, padded to the longest."""
    if len(parts) == 1:
        return parts[0]
    most = max(part.valid_BP.shape[1] for part in parts)
    more = [most - part.valid_BP.shape[1] for part in parts]
    hidden = [
        F.pad(x.hidden_BPD, (0, 0, 0, n)) for x, n in zip(parts, more, strict=True)
    ]
    valid = [F.pad(x.valid_BP, (0, n)) for x, n in zip(parts, more, strict=True)]
    routes = [part.route for part in parts if part.route is not None]
    lid = [part.lid_logits_BN for part in parts if part.lid_logits_BN is not None]
    return Encoded(
        torch.cat(hidden),
        torch.cat(valid),
        [row for route in routes for row in route] if routes else None,
        torch.cat(lid) if lid else None,
    )


def encode(
    backbone: Backbone,
    system: System,
    mel_BTM: Tensor,
    frames_B: Tensor,
    route: Route | None = None,
) -> Encoded:
    """Runs the encoder under a system's gates.

    Args:
        backbone: The frozen Whisper.
        system: The choice of gates.
        mel_BTM: Log-mel features, (B, T, M).
        frames_B: Their lengths, (B,).
        route: The languages if known; they replace the router's.
    """
    x_BPD, valid_BP = backbone.embed(mel_BTM, frames_B)
    lid_logits_BN = None
    for i in range(backbone.encoder_layers + 1):
        found = system.find_route(i, x_BPD, valid_BP)
        if found is not None:
            lid_logits_BN = found
            route = route or system.route(found)
        if i < backbone.encoder_layers:
            gate = system.encoder_gate(i, route)
            x_BPD = backbone.encode_layer(i, x_BPD, valid_BP, gate)
    return Encoded(backbone.encoder_norm(x_BPD), valid_BP, route, lid_logits_BN)


def decode(
    backbone: Backbone, system: System, encoded: Encoded, ids_BU: Tensor
) -> Tensor:
    """Last decoder layer's output before the norm, for given tokens, (B, U, D)."""
    y_BUD = backbone.embed_tokens(ids_BU)
    gate = system.decoder_gate(encoded.route)
    for i in range(backbone.decoder_layers):
        y_BUD = backbone.decode_layer(
            i, y_BUD, encoded.hidden_BPD, encoded.valid_BP, gate
        )
    return y_BUD


def deployed_parameters(backbone: Backbone, system: System) -> int:
    """Parameters needed to run a system: one LoRA folds into the backbone for free.

    A MoLE drops the experts of its merged layers and keeps one merged pair each.
    """
    bank = backbone.bank
    lora = {p for name in bank.names for _, p in bank.parameters_of(name)}
    whisper = sum(p.numel() for p in backbone.hf.parameters() if p not in lora)
    if isinstance(system, Single):
        return whisper
    total = whisper + sum(p.numel() for p in system.parameters())
    merged = getattr(system, "fusion", None)
    for i, name in enumerate(system.experts):
        for key, parameter in bank.parameters_of(name):
            layer = key.rsplit(".", 2)[0]
            if not isinstance(system, MoLE) or layer not in merged.index or i == 0:
                total += parameter.numel()
    return total - (merged.V_IN.numel() if merged is not None else 0)
