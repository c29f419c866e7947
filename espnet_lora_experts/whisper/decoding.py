"""Decoding a batch under a system's gates: the language, then the words.

Names of dimensions: B batch, P encoder positions, D width, K vocabulary, L languages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from espnet_lora_experts.whisper.backbone import Backbone
from espnet_lora_experts.whisper.prompt import PROMPT_LENGTH, Prompter
from espnet_lora_experts.whisper.route import Route, languages_of
from espnet_lora_experts.whisper.search import search
from espnet_lora_experts.whisper.stepper import Stepper
from espnet_lora_experts.whisper.systems import Encoded, System


@dataclass(frozen=True)
class DecodeOptions:
    """How to decode.

    Attributes:
        beam_size: Hypotheses kept for each utterance; 1 is greedy search.
        length_penalty: Hypotheses that ended are ranked by their score divided by
            their length to this power; matters with beams only.
        max_tokens: Most tokens of a transcript; None is half the decoder's positions.
        maxlenratio: Most tokens for each encoder frame of the clip (20 ms), ESPnet's
            option: it bounds what a decoder that loops can add. 1 (50 tokens a
            second) is above the fastest speech in any script; 0 sets no such bound.
        no_repeat_ngram_size: So many tokens in a row never come a second time in a
            transcript, transformers' option: a decoder that loops must go on with
            other ones, or end; 0 sets no such bound.
        suppress_tokens: Leave out the non-speech tokens that Whisper's
            generation_config names: for a Whisper that was not fine-tuned.
    """

    beam_size: int = 1
    length_penalty: float = 1.0
    max_tokens: int | None = None
    maxlenratio: float = 1.0
    no_repeat_ngram_size: int = 0
    suppress_tokens: bool = False

    def __post_init__(self):
        counts = {"beam_size": 1, "max_tokens": 1, "no_repeat_ngram_size": 0}
        for name, least in (counts | {"maxlenratio": 0}).items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} must be {least} or more, but got {value}")


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


class Recognizer:
    """Finds languages and words with one system.

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
        self.never_K = self._bias([*specials, *(named if suppress_tokens else [])])
        self.not_first_K = self._bias(first if suppress_tokens else [])

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
        found, posteriors, prompted = self._languages(encoded, langs)
        route = langs or encoded.route or found
        stepper = prompted or self._stepper(encoded, route)
        prompts_BT = torch.tensor([self.prompter.prompt(lang) for lang in found])
        prompts_BT = prompts_BT[:, stepper.length :].to(encoded.hidden_BPD.device)
        paths = search(
            stepper,
            stepper.prompt(prompts_BT) + self.not_first_K.to(prompts_BT.device),
            self._limits(frames, len(found)),
            self.prompter.eot,
            self.never_K.to(prompts_BT.device),
            self.options.length_penalty,
            self.options.no_repeat_ngram_size,
        )
        return [
            Hypothesis([*path.tokens], path.score, lang, posterior, path.ended)
            for path, lang, posterior in zip(paths, found, posteriors, strict=True)
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
        found, posteriors, _ = self._languages(encoded, langs)
        return found, posteriors

    def _languages(
        self, encoded: Encoded, langs: Sequence[str] | None
    ) -> tuple[list[str], list[dict[str, float]], Stepper | None]:
        """Languages, posteriors, and a stepper if one had to read the first token."""
        targets, logits_BL, stepper = self.system.languages, encoded.lid_logits_BN, None
        if langs is None and logits_BL is None:
            langs = encoded.route and languages_of(encoded.route)
        if langs is not None:
            return list(langs), [{}] * len(langs), None
        if logits_BL is None:
            stepper = self._stepper(encoded, encoded.route)
            sot_B1 = torch.full((len(encoded.valid_BP), 1), self.prompter.sot)
            logits_BK = stepper.prompt(sot_B1.to(encoded.hidden_BPD.device))
            logits_BL = logits_BK[:, [self.prompter.language(x) for x in targets]]
        posterior_BL = logits_BL.float().softmax(dim=1)
        best = [targets[i] for i in posterior_BL.argmax(dim=1).tolist()]
        rows = [dict(zip(targets, row, strict=True)) for row in posterior_BL.tolist()]
        # a MoLE's encoder may have been told
        found = languages_of(encoded.route) if encoded.route else best
        return found, rows, stepper

    def _stepper(self, encoded: Encoded, route: Route | None) -> Stepper:
        if self.system.routed and route is None:
            raise ValueError(
                "this system needs the language of every utterance, but got none: give "
                "lang, or find it first with another system (two_pass)"
            )
        told = Encoded(encoded.hidden_BPD, encoded.valid_BP, route)
        return Stepper(self.backbone, self.system, told, self.options.beam_size)
