"""The decoder one token at a time: each key and value is computed once.

Transformers' cache copies all keys at every step, and again for every change of beams.
Here each utterance has one buffer for all its hypotheses, which moves only when it
grows or when an utterance leaves the batch, and a hypothesis remembers its *path*: at
which place of the buffer each of its tokens stands. Attention looks at the whole buffer
through a mask of paths. The encoder's keys and values are computed once for each
utterance, whatever the number of hypotheses.

Names of dimensions: B batch, H heads, d width of a head, D width, P encoder positions,
T text positions, Q hypotheses of an utterance, K vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from espnet_lora_experts.whisper.attention import attend, heads
from espnet_lora_experts.whisper.backbone import Backbone
from espnet_lora_experts.whisper.cross import Cross, keys_values
from espnet_lora_experts.whisper.systems import Encoded, System

GROWTH = 32  # text positions by which the buffers grow


class Stepper:
    """Next-token scores of a batch whose hypotheses grow by one token a step.

    Args:
        backbone: The frozen Whisper.
        system: Its gates.
        encoded: The encoder's output; its route must be known where the gates need it.
        beam: Q, most hypotheses of an utterance.
    """

    def __init__(
        self, backbone: Backbone, system: System, encoded: Encoded, beam: int = 1
    ):
        self.backbone, self.beam = backbone, beam
        self.valid_BP, self.route = encoded.valid_BP, encoded.route
        self.layers = backbone.hf.model.decoder.layers
        self.length = 0
        self.paths_BQT = self.valid_BP.new_zeros(
            len(self.valid_BP), beam, 0, dtype=torch.long
        )
        self._gate_of = system.step_gate(self.route)
        self._gate = self._gate_of(self.route)
        self.cross = Cross(backbone, system, encoded)
        # (B, H, T, Q, d) each, of the type that the products have
        self.text = [
            tuple(
                x.new_empty(len(self.valid_BP), x.shape[1], 0, beam, x.shape[3])
                for x in pair
            )
            for pair in self.cross.parts[0].layers
        ]

    def prompt(self, ids_BT: Tensor) -> Tensor:
        """Feeds tokens that all hypotheses share, (B, T); only before any :meth:`step`.

        Returns:
            Scores after the last, (B, K).
        """
        start, count = self.length, ids_BT.shape[1]
        zeros_BQT = self.paths_BQT.new_zeros(len(ids_BT), self.beam, count)
        self._grow(zeros_BQT)
        causal_TT = torch.ones(count, self.length, dtype=torch.bool).tril(start)
        y_BTD = self.backbone.embed_tokens(ids_BT, start)
        place = slice(start, self.length), 0
        y_BTD = self._run(y_BTD, place, 1, causal_TT.to(ids_BT.device))
        return self.backbone.logits(y_BTD[:, -1])

    def step(self, ids_BQ: Tensor) -> Tensor:
        """Feeds each hypothesis' next token, (B, Q'); scores after it, (B, Q', K)."""
        decoder = self.backbone.hf.model.decoder
        rows, used = ids_BQ.shape
        place_BQ1 = torch.arange(self.beam, device=ids_BQ.device).expand(rows, -1)
        self._grow(place_BQ1[:, :, None])
        position_D = decoder.embed_positions.weight[self.length - 1]
        y_BQD = decoder.embed_tokens(ids_BQ) + position_D
        place = self.length - 1, slice(0, used)
        y_BQD = self._run(y_BQD, place, self.beam, self._path_mask(used))
        return self.backbone.logits(y_BQD)

    def follow(self, parents_BQ: Tensor) -> None:
        """Hypothesis q becomes a continuation of hypothesis ``parents_BQ[:, q]``."""
        if self.beam == 1:
            return
        index_BQT = parents_BQ[:, :, None].expand(-1, -1, self.length)
        self.paths_BQT = self.paths_BQT.gather(1, index_BQT)

    def widen(self, beam: int) -> None:
        """Makes room for more hypotheses; new ones are copies of the first."""
        more = beam - self.beam
        if more > 0:
            copies_BQT = self.paths_BQT[:, :1].expand(-1, more, -1)
            self.paths_BQT = torch.cat([self.paths_BQT, copies_BQT], dim=1)
            room = (0, 0, 0, more)
            self.text = [(F.pad(k, room), F.pad(v, room)) for k, v in self.text]
            self.beam = beam

    def fork(self) -> Stepper:
        """A copy that can go another way; the encoder's keys are shared."""
        twin = copy.copy(self)
        twin.text = [(keys.clone(), values.clone()) for keys, values in self.text]
        return twin

    def keep(self, rows: Sequence[int]) -> None:
        """Goes on with some utterances of the batch only."""
        index = torch.as_tensor(rows, device=self.valid_BP.device)
        self.valid_BP, self.paths_BQT = self.valid_BP[index], self.paths_BQT[index]
        self.route = None if self.route is None else [self.route[i] for i in rows]
        self.text = [(keys[index], values[index]) for keys, values in self.text]
        self.cross = self.cross.keep(rows)
        self._gate = self._gate_of(self.route)

    def _grow(self, paths_BQT: Tensor) -> None:
        """Adds text positions, with room in the buffers."""
        self.paths_BQT = torch.cat([self.paths_BQT, paths_BQT], dim=2)
        self.length = self.paths_BQT.shape[2]
        room = self.text[0][0].shape[2]
        if room < self.length:
            more = (0, 0, 0, 0, 0, self.length + GROWTH - room)
            self.text = [(F.pad(k, more), F.pad(v, more)) for k, v in self.text]

    def _path_mask(self, used: int) -> Tensor | None:
        """Which places of the buffer each hypothesis sees, (B, 1, Q', T * Q)."""
        if self.beam == 1:
            return None
        places_Q = torch.arange(self.beam, device=self.paths_BQT.device)
        seen_BQTQ = self.paths_BQT[:, :used, :, None] == places_Q
        return seen_BQTQ.flatten(2)[:, None]

    def _run(self, y: Tensor, place, beam: int, mask: Tensor | None) -> Tensor:
        """All layers; the tokens' keys and values go to ``place`` of the buffers."""
        with self.backbone.bank.using(self._gate):
            for i, (layer, text) in enumerate(zip(self.layers, self.text, strict=True)):
                x = layer.self_attn_layer_norm(y)
                fresh = keys_values(layer.self_attn, x)
                for buffer, values in zip(text, fresh, strict=True):
                    buffer[:, :, place[0], place[1]] = values
                keys, values = (
                    b[:, :, : self.length, :beam].flatten(2, 3) for b in text
                )
                look = partial(attend, keys=keys, values=values, mask=mask)
                y = y + _attend(layer.self_attn, x, look)
                x = layer.encoder_attn_layer_norm(y)
                y = y + _attend(layer.encoder_attn, x, partial(self.cross.attend, i))
                x = layer.final_layer_norm(y)
                y = y + layer.fc2(layer.activation_fn(layer.fc1(x)))
        return y


def _attend(attention, x: Tensor, look: Callable[[Tensor], Tensor]) -> Tensor:
    query = heads(attention.q_proj(x) * attention.scaling, attention)
    return attention.out_proj(look(query).transpose(1, 2).flatten(2))
