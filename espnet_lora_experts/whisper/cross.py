"""The encoder's keys and values for the decoder, utterances of like length together.

A decoder's step on a CPU waits for memory, and most of what it reads are these keys and
values: those of padding would be read at every step, too. So a batch keeps them in
parts with little padding, cut where reading it costs more than one more product.

Names of dimensions: B batch, C rows of a part, H heads, d width of a head, D width,
P encoder positions, T queries.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from espnet_lora_experts.whisper.attention import attend, heads
from espnet_lora_experts.whisper.backbone import Backbone, padding_mask
from espnet_lora_experts.whisper.batching import batches
from espnet_lora_experts.whisper.systems import Encoded, System

OVERHEAD = 1000
"""Positions whose reading costs what a part costs by itself."""


@dataclass(frozen=True)
class Part:
    """Some rows of the batch.

    Attributes:
        rows: Their places in the batch, ascending.
        padding: Mask of their own positions, (C, 1, 1, P); None: all are.
        layers: Keys and values of each decoder layer, (C, H, P, d) each.
    """

    rows: list[int]
    padding: Tensor | None
    layers: list[tuple[Tensor, Tensor]]

    def keep(self, places: dict[int, int]) -> Part:
        """The rows that stay, at their new places."""
        kept = [c for c, row in enumerate(self.rows) if row in places]
        rows = [places[self.rows[c]] for c in kept]
        if len(kept) == len(self.rows):
            return replace(self, rows=rows)
        padding = None if self.padding is None else self.padding[kept]
        return Part(rows, padding, [(k[kept], v[kept]) for k, v in self.layers])


class Cross:
    """What the decoder of a batch sees of its encoder.

    Args:
        backbone: The frozen Whisper.
        system: Its gates.
        encoded: The encoder's output.
    """

    def __init__(self, backbone: Backbone, system: System, encoded: Encoded):
        valid_BP, route = encoded.valid_BP, encoded.route
        lengths = valid_BP.sum(dim=1).tolist()
        overhead = OVERHEAD if valid_BP.device.type == "cpu" else float("inf")
        self.parts = []
        for rows in map(sorted, batches(lengths, lambda *_: True, overhead)):
            own = slice(0, max(lengths[row] for row in rows))
            hidden_CPD, valid_CP = encoded.hidden_BPD[rows, own], valid_BP[rows, own]
            told = None if route is None else [route[row] for row in rows]
            with backbone.bank.using(system.decoder_gate(told)):
                layers = [
                    keys_values(layer.encoder_attn, hidden_CPD)
                    for layer in backbone.hf.model.decoder.layers
                ]
            self.parts.append(Part(rows, padding_mask(valid_CP), layers))

    def attend(self, layer: int, query_BHTd: Tensor) -> Tensor:
        """What the queries of one decoder layer see, (B, H, T, d)."""
        if len(self.parts) == 1:
            part = self.parts[0]
            return attend(query_BHTd, *part.layers[layer], part.padding)
        seen_BHTd = torch.empty_like(query_BHTd)
        for part in self.parts:
            query = query_BHTd[part.rows]
            seen_BHTd[part.rows] = attend(query, *part.layers[layer], part.padding)
        return seen_BHTd

    def keep(self, rows: Sequence[int]) -> Cross:
        """Of some rows only; ``rows[i]`` becomes row i."""
        places = {row: place for place, row in enumerate(rows)}
        parts = [part.keep(places) for part in self.parts]
        less = copy.copy(self)
        less.parts = [part for part in parts if part.rows]
        return less


def keys_values(attention: nn.Module, x_BTD: Tensor) -> tuple[Tensor, Tensor]:
    """An attention's keys and values, (B, H, T, d) each, ready to be read often."""
    keys, values = attention.k_proj(x_BTD), attention.v_proj(x_BTD)
    return heads(keys, attention).contiguous(), heads(values, attention).contiguous()
