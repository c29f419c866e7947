"""Greedy decoding, batched and cached, under a system's gates.

Names of dimensions: B batch, P encoder positions, D width, K vocabulary, L languages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

from espnet_lora_experts.whisper.backbone import Backbone
from espnet_lora_experts.whisper.prompt import PROMPT_LENGTH, Prompter
from espnet_lora_experts.whisper.systems import Encoded, System


@dataclass(frozen=True)
class DecodeOptions:
    """How to decode.

    Attributes:
        max_tokens: Most tokens of a transcript; None is half the decoder's positions.
        maxlenratio: Most tokens for each encoder frame of the clip (20 ms), ESPnet's
            option: it bounds what a decoder that loops can add. 1 (50 tokens a
            second) is above the fastest speech in any script; 0 sets no such bound.
        suppress_tokens: Leave out the non-speech tokens that Whisper's
            generation_config names: for a Whisper that was not fine-tuned.
    """

    max_tokens: int | None = None
    maxlenratio: float = 1.0
    suppress_tokens: bool = False


@dataclass(frozen=True)
class Hypothesis:
    """One utterance's result.

    Attributes:
        tokens: Ids of the transcript, without prompt and end.
        score: Sum of the tokens' log probabilities (nats), the end's included.
        lang: The language it was decoded in.
        posteriors: Probability of each target language; empty when it was given.
        ended: Whether the end token came before the limit.
    """

    tokens: list[int]
    score: float
    lang: str
    posteriors: dict[str, float]
    ended: bool


class Greedy:
    """Greedy decoder of one system.

    Args:
        backbone: The frozen Whisper.
        system: Its gates; its languages are the ones that may be found.
        prompter: Tokens and prompts.
        options: How to decode.
    """

    def __init__(
        self,
        backbone: Backbone,
        system: System,
        prompter: Prompter,
        options: DecodeOptions | None = None,
    ):
        self.backbone, self.system, self.prompter = backbone, system, prompter
        self.options = options or DecodeOptions()
        positions = backbone.config.max_target_positions
        self.max_tokens = self.options.max_tokens or positions // 2
        self.max_tokens = min(self.max_tokens, positions - PROMPT_LENGTH)
        self._set_banned(self.options.suppress_tokens)

    def _set_banned(self, suppress_tokens: bool) -> None:
        """Tokens that may never come, and those that may not come first."""
        generation = self.backbone.hf.generation_config
        named = getattr(generation, "suppress_tokens", None) or []
        first = getattr(generation, "begin_suppress_tokens", None) or []
        specials = range(self.prompter.eot + 1, self.backbone.config.vocab_size)
        self.never = self._bias([*specials, *(named if suppress_tokens else [])])
        self.not_first = self._bias(first if suppress_tokens else [])

    def _bias(self, ids: Sequence[int]) -> Tensor:
        bias_K = torch.zeros(self.backbone.config.vocab_size)
        bias_K[list(ids)] = float("-inf")
        return bias_K

    @torch.no_grad()
    def __call__(
        self,
        encoded: Encoded,
        langs: Sequence[str] | None = None,
        frames: Sequence[int] | None = None,
    ) -> list[Hypothesis]:
        """Decodes a batch.

        Args:
            encoded: The encoder's output; its route, if any, is the language.
            langs: The languages if known.
            frames: Encoder frames of each clip without its padding, for
                ``maxlenratio``; None sets no such bound.

        Returns:
            One hypothesis for each row, in order.
        """
        langs, posteriors = self.find_languages(encoded, langs)
        encoded = Encoded(encoded.hidden_BPD, encoded.valid_BP, langs)
        prompts_BU = torch.tensor([self.prompter.prompt(lang) for lang in langs])
        limits = self._limits(frames, len(langs))
        rows = self._search(encoded, prompts_BU.to(encoded.hidden_BPD.device), limits)
        return [
            Hypothesis(row.tokens, row.score, lang, posterior, row.ended)
            for row, lang, posterior in zip(rows, langs, posteriors, strict=True)
        ]

    def _limits(self, frames: Sequence[int] | None, rows: int) -> list[int]:
        """Most tokens of each row, its end token not counted."""
        ratio = self.options.maxlenratio
        if frames is None or not ratio:
            return [self.max_tokens] * rows
        return [min(self.max_tokens, max(1, int(ratio * count))) for count in frames]

    def find_languages(
        self, encoded: Encoded, langs: Sequence[str] | None = None
    ) -> tuple[list[str], list[dict[str, float]]]:
        """Each row's language: given, or the router's, or Whisper's own token's.

        Only the system's languages can be found: the others' tokens do not compete.

        Returns:
            Languages, and the posteriors of the system's languages for each row (empty
            where the language was given).
        """
        targets, logits_BL = self.system.languages, encoded.lid_logits_BN
        if langs is None and logits_BL is None:
            langs = encoded.route
        if langs is not None:
            return list(langs), [{}] * len(langs)
        if logits_BL is None:
            logits_BL = self._language_token_logits(encoded, targets)
        posterior_BL = logits_BL.float().softmax(dim=1)
        best = [targets[i] for i in posterior_BL.argmax(dim=1).tolist()]
        found = list(encoded.route or best)  # a MoLE's encoder may have been told
        rows = [dict(zip(targets, row, strict=True)) for row in posterior_BL.tolist()]
        return found, rows

    def _language_token_logits(self, encoded: Encoded, targets: list[str]) -> Tensor:
        if self.system.routed:
            raise ValueError(
                "this system needs the language of every utterance, but got none: give "
                "lang, or find it first with another system (two_pass)"
            )
        batch = encoded.hidden_BPD.shape[0]
        sot_B1 = torch.full((batch, 1), self.prompter.sot)
        logits_BK = self._step(encoded, sot_B1.to(encoded.hidden_BPD.device), 0, None)
        return logits_BK[:, [self.prompter.language(lang) for lang in targets]]

    def _step(self, encoded: Encoded, ids_BU: Tensor, start: int, cache) -> Tensor:
        """Scores of the next token after ``ids_BU``, (B, K)."""
        y_BUD = self.backbone.embed_tokens(ids_BU, start)
        gate = self.system.decoder_gate(encoded.route)
        for i in range(self.backbone.decoder_layers):
            y_BUD = self.backbone.decode_layer(
                i, y_BUD, encoded.hidden_BPD, encoded.valid_BP, gate, cache
            )
        return self.backbone.logits(y_BUD[:, -1])

    def _search(
        self, encoded: Encoded, prompts_BU: Tensor, limits: list[int]
    ) -> list[_Row]:
        """Each row's tokens and score; finished rows leave the batch."""
        device = prompts_BU.device
        never_K, not_first_K = self.never.to(device), self.not_first.to(device)
        rows = [_Row(limit) for limit in limits]
        alive = rows
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        ids_BU, start = prompts_BU, 0
        while True:
            logits_BK = self._step(encoded, ids_BU, start, cache) + never_K
            if ids_BU is prompts_BU:
                logits_BK = logits_BK + not_first_K
            score_B, next_B = logits_BK.float().log_softmax(dim=-1).max(dim=-1)
            start += ids_BU.shape[1]
            found = zip(alive, next_B.tolist(), score_B.tolist(), strict=True)
            going = [
                k
                for k, (row, token, score) in enumerate(found)
                if row.goes_on(token, score, self.prompter.eot)
            ]
            if not going:
                return rows
            if len(going) < len(alive):
                alive = [alive[k] for k in going]
                encoded = encoded.rows(going)
                cache.batch_select_indices(torch.tensor(going, device=device))
            ids_BU = next_B[going][:, None]


@dataclass
class _Row:
    """One utterance's tokens so far."""

    limit: int
    tokens: list[int] = field(default_factory=list)
    score: float = 0.0
    ended: bool = False

    def goes_on(self, token: int, score: float, eot: int) -> bool:
        """Notes the next token; whether another one may follow."""
        self.score += score
        self.ended = token == eot
        if not self.ended:
            self.tokens.append(token)
        return not self.ended and len(self.tokens) < self.limit
