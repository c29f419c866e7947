"""Clips of up to 30 s in batches: encoder, decoder, and the gates folded for both."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import groupby

import numpy as np
import torch

from espnet_lora_experts.inference.batches import decoder_batches, encoder_batches
from espnet_lora_experts.inference.result import Transcript
from espnet_lora_experts.whisper import systems
from espnet_lora_experts.whisper.backbone import Backbone
from espnet_lora_experts.whisper.decoding import DecodeOptions, Recognizer
from espnet_lora_experts.whisper.features import FRAME_PAIR, MARGIN, MAX_SAMPLES, stack
from espnet_lora_experts.whisper.precision import autocast_context, autocast_type
from espnet_lora_experts.whisper.prompt import Prompter
from espnet_lora_experts.whisper.systems import System


class ClipRecognizer:
    """Recognizes lists of clips; :class:`~.speech2text.Speech2Text` says the options.

    Attributes:
        system: The gates in force.
    """

    def __init__(
        self,
        backbone: Backbone,
        system: System,
        prompter: Prompter,
        pad_to_30s: bool = False,
        batch_seconds: float = 80.0,
        autocast: str = "none",
        **options,
    ):
        self.backbone, self.prompter = backbone, prompter
        self.pad_to_30s, self.batch_seconds = pad_to_30s, batch_seconds
        self.autocast, self.options = autocast, options
        autocast_type(autocast, "cpu")
        self.recognizer = Recognizer(
            backbone, system.eval(), prompter, DecodeOptions(**options)
        )

    @property
    def system(self) -> System:
        return self.recognizer.system

    @system.setter
    def system(self, system: System) -> None:
        with self.backbone.bank.turn:
            self.recognizer.system = system.eval()

    @torch.no_grad()
    def find_languages(self, clips: Sequence[np.ndarray]) -> list[str]:
        """The language of each clip, without transcribing."""
        found: dict[int, str] = {}
        bank = self.backbone.bank
        with bank.turn, bank.folded(partial(self.system.folding, lang=None)):
            for rows in self._encoder_batches(clips):
                encoded = self._encode(of(clips, rows), None)
                with self._autocast():
                    langs, _ = self.recognizer.find_languages(encoded)
                found |= dict(zip(rows, langs, strict=True))
        return [found[i] for i in range(len(clips))]

    @torch.no_grad()
    def recognize(
        self,
        clips: Sequence[np.ndarray],
        langs: Sequence[str] | None,
        count: Callable[[list[int]], object],
    ) -> list[Transcript]:
        """What was said in each clip.

        Args:
            clips: Samples at 16 kHz, up to 30 s each.
            langs: The language of each; None finds it.
            count: Called with the rows of each batch that is done.
        """
        found: dict[int, Transcript] = {}
        bank = self.backbone.bank
        with bank.turn:
            for lang, group in self._groups(len(clips), langs):
                with bank.folded(partial(self.system.folding, lang=lang)):
                    for batch in self._decoder_batches(of(clips, group)):
                        rows = of(group, batch)
                        said = self._decode(of(clips, rows), of(langs, rows))
                        found |= dict(zip(rows, said, strict=True))
                        count(rows)
        return [found[i] for i in range(len(clips))]

    def _decode(self, clips, langs) -> list[Transcript]:
        """A batch, longest clip first; the encoder reads it in parts."""
        parts = [
            self._encode(of(clips, part), of(langs, part))
            for part in self._encoder_batches(clips)
        ]
        frames = [-(-len(clip) // FRAME_PAIR) for clip in clips]
        with self._autocast():
            hypotheses = self.recognizer(systems.join(parts), langs, frames)
        return [self._said(hypothesis) for hypothesis in hypotheses]

    def _groups(self, count: int, langs) -> Iterator[tuple[str | None, list[int]]]:
        """Clips of one language together where the gates differ by language."""
        if langs is None or not self.system.routed:
            yield None, list(range(count))
            return
        order = sorted(range(count), key=langs.__getitem__)
        for lang, group in groupby(order, key=langs.__getitem__):
            yield lang, list(group)

    def _encoder_batches(self, clips) -> list[list[int]]:
        return encoder_batches(self._padded(clips), self.batch_seconds)

    def _decoder_batches(self, clips) -> list[list[int]]:
        return decoder_batches(self._padded(clips), self.backbone.config)

    def _padded(self, clips) -> list[int]:
        """Samples of each clip with what it is padded with."""
        if self.pad_to_30s:
            return [MAX_SAMPLES] * len(clips)
        return [len(clip) + MARGIN for clip in clips]

    def _encode(self, clips: Sequence[np.ndarray], langs):
        device = self.backbone.hf.device
        features = self.backbone.log_mel(*stack(clips, device), self.pad_to_30s)
        with self._autocast():
            return systems.encode(self.backbone, self.system, *features, route=langs)

    def _autocast(self):
        return autocast_context(self.autocast, self.backbone.hf.device.type)

    def _said(self, hypothesis) -> Transcript:
        return Transcript(
            self.prompter.decode(hypothesis.tokens),
            hypothesis.lang,
            hypothesis.posteriors,
            hypothesis.score,
            self.prompter.tokens(hypothesis.tokens),
            hypothesis.ended,
        )


def of(values, rows) -> list | None:
    """The values of some rows, None where there are none at all."""
    return None if values is None else [values[i] for i in rows]
