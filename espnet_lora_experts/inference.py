"""Speech to text with a trained system: one clip, a batch, or a list of any length."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby

import numpy as np
import torch

from espnet_lora_experts.whisper import hub, languages
from espnet_lora_experts.whisper.audio import SAMPLE_RATE, read_audio
from espnet_lora_experts.whisper.backbone import Backbone
from espnet_lora_experts.whisper.batching import batches
from espnet_lora_experts.whisper.decoding import DecodeOptions, Recognizer
from espnet_lora_experts.whisper.features import FRAME_PAIR, MARGIN, MAX_SAMPLES
from espnet_lora_experts.whisper.folder import VANILLA, load_system
from espnet_lora_experts.whisper.precision import autocast_context, autocast_type
from espnet_lora_experts.whisper.prompt import Prompter
from espnet_lora_experts.whisper.systems import System, encode, join

ENCODER_BATCH = 5 * SAMPLE_RATE
"""Samples of speech that cost what a batch of the encoder costs by itself."""
DECODER_BATCH = 400 * SAMPLE_RATE
"""The same for the decoder, which reads its weights and the vocabulary's every step."""
MOST_ROWS = 64
"""Most clips that are decoded at once: beyond, a step costs more for each of them."""
MOST_KEYS = 2**28
"""Most numbers in the decoder's keys and values of the encoder: 1 GB in float32."""

Speech = str | os.PathLike | np.ndarray | torch.Tensor


@dataclass(frozen=True)
class Result:
    """What was said in one clip.

    Attributes:
        text: The transcript.
        lang: Code of its language, given or found.
        posteriors: Probability of each of the system's languages; empty when given.
        score: Log probability of the transcript in nats.
        tokens: Its tokens.
        ended: Whether it ended by itself, before the limit on its tokens.
    """

    text: str
    lang: str
    posteriors: dict[str, float]
    score: float
    tokens: list[str]
    ended: bool = True


class Speech2Text:
    """Recognizes speech with one system: experts, MoLE, student, baseline or vanilla.

    Args:
        backbone: The frozen Whisper.
        system: The gates.
        prompter: Tokens and prompts of the backbone.
        pad_to_30s: Pad clips to 30 s. A Whisper that was not fine-tuned needs it, a
            system trained at natural length (the default of all recipes) does not.
        batch_seconds: Most seconds of a padded batch of the encoder.
        autocast: Type of the matrix products, see
            :func:`~.whisper.precision.autocast_type`.
        finder: Finds the language for systems that cannot; see :meth:`two_pass`.
        options: How to decode, see :class:`~.whisper.decoding.DecodeOptions`.
    """

    def __init__(
        self,
        backbone: Backbone,
        system: System,
        prompter: Prompter,
        pad_to_30s: bool = False,
        batch_seconds: float = 80.0,
        autocast: str = "none",
        finder: Speech2Text | None = None,
        **options,
    ):
        self.backbone, self.system, self.prompter = backbone, system.eval(), prompter
        self.pad_to_30s, self.finder = pad_to_30s, finder
        self.batch_seconds, self.autocast = batch_seconds, autocast
        self.options = options
        autocast_type(autocast, "cpu")
        self.recognizer = Recognizer(
            backbone, self.system, prompter, DecodeOptions(**options)
        )

    @classmethod
    def from_pretrained(
        cls, folder: str | os.PathLike, backbone: Backbone | None = None, **kwargs
    ) -> Speech2Text:
        """Loads a system's folder, as training exports it.

        Args:
            folder: With a ``system.json``; of type vanilla, see :meth:`vanilla`.
            backbone: A Whisper in memory to use, where it is the right one.
            kwargs: See the class.

        Raises:
            FileNotFoundError: A file of the folder is missing.
            ValueError: A file is broken, or the folder holds no system by itself, as
                that of two passes; see :meth:`two_pass`.
        """
        backbone, system, what = load_system(folder, backbone)
        if what["type"] == VANILLA:
            return cls.vanilla(backbone, system.languages, **kwargs)
        return cls(backbone, system, Prompter(hub.resolve(backbone.name)), **kwargs)

    @classmethod
    def vanilla(
        cls, backbone: Backbone, targets: Sequence[str], **kwargs
    ) -> Speech2Text:
        """Whisper as it came: padded to 30 s, its own token suppression.

        Args:
            backbone: The Whisper.
            targets: Languages that may be found.
            kwargs: See the class.
        """
        return cls(
            backbone,
            System([languages.get(code).code for code in targets]),
            Prompter(hub.resolve(backbone.name)),
            **{"pad_to_30s": True, "suppress_tokens": True} | kwargs,
        )

    def with_system(self, system: System) -> Speech2Text:
        """The same backbone and options with other gates."""
        return Speech2Text(
            self.backbone,
            system,
            self.prompter,
            self.pad_to_30s,
            self.batch_seconds,
            self.autocast,
            self.finder,
            **self.options,
        )

    def two_pass(self, finder: Speech2Text) -> Speech2Text:
        """The same system, with another one to find the language first."""
        self.finder = finder
        return self

    def __call__(
        self,
        speech: Speech | Sequence[Speech],
        lang: str | Sequence[str] | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> Result | list[Result]:
        """Recognizes a clip or a list of clips.

        Args:
            speech: Path, samples at 16 kHz in [-1, 1], or a list of either.
            lang: Language code, or one for each clip; None finds it.
            progress: Called with the number of clips done, after each batch.

        Returns:
            One result, or a list in the order of the clips.

        Raises:
            ValueError: Unknown language, unreadable or empty audio, a clip over 30 s.
        """
        one = not isinstance(speech, list | tuple)
        clips = [_samples(clip) for clip in ([speech] if one else speech)]
        langs = self._checked(lang, len(clips))
        with torch.no_grad():
            if langs is None and self.finder is not None:
                langs = self.finder.find_languages(clips)
            results = self._recognize(clips, langs, progress or (lambda done: None))
        return results[0] if one else results

    @torch.no_grad()
    def find_languages(self, clips: Sequence[np.ndarray]) -> list[str]:
        """The language of each clip, without transcribing."""
        found: dict[int, str] = {}
        with self.backbone.bank.folded(partial(self.system.folding, lang=None)):
            for rows in self._encoder_batches(clips):
                encoded = self._encode([clips[i] for i in rows], None)
                with self._autocast():
                    langs, _ = self.recognizer.find_languages(encoded)
                found |= dict(zip(rows, langs, strict=True))
        return [found[i] for i in range(len(clips))]

    def _checked(self, lang, count: int) -> list[str] | None:
        if lang is None:
            return None
        langs = [lang] * count if isinstance(lang, str) else list(lang)
        if len(langs) != count:
            raise ValueError(f"lang must be one or {count} codes, but got {len(langs)}")
        unknown = sorted({languages.get(code).code for code in langs})
        unknown = [code for code in unknown if code not in self.system.languages]
        if unknown:
            raise ValueError(
                f"lang must be of this system's {self.system.languages}, got {unknown}"
            )
        return langs

    def _recognize(self, clips, langs, progress) -> list[Result]:
        results: dict[int, Result] = {}
        for lang, group in self._groups(len(clips), langs):
            gate_of = partial(self.system.folding, lang=lang)
            with self.backbone.bank.folded(gate_of):
                for batch in self._decoder_batches(_of(clips, group)):
                    rows = _of(group, batch)
                    found = self._decode(_of(clips, rows), _of(langs, rows))
                    results |= dict(zip(rows, found, strict=True))
                    progress(len(rows))
        return [results[i] for i in range(len(clips))]

    def _decode(self, clips, langs) -> list[Result]:
        """The results of a batch, longest clip first; the encoder reads it in parts."""
        parts = [
            self._encode(_of(clips, part), _of(langs, part))
            for part in self._encoder_batches(clips)
        ]
        frames = [-(-len(clip) // FRAME_PAIR) for clip in clips]
        with self._autocast():
            hypotheses = self.recognizer(join(parts), langs, frames)
        return [self._result(hypothesis) for hypothesis in hypotheses]

    def _groups(self, count: int, langs) -> Iterator[tuple[str | None, list[int]]]:
        """Clips of one language together where the gates differ by language."""
        if langs is None or not self.system.routed:
            yield None, list(range(count))
            return
        order = sorted(range(count), key=langs.__getitem__)
        for lang, group in groupby(order, key=langs.__getitem__):
            yield lang, list(group)

    def _encoder_batches(self, clips) -> list[list[int]]:
        """Clips of similar length, as many as fit into ``batch_seconds``."""
        most = self.batch_seconds * SAMPLE_RATE
        lengths = [self._padded(clip) for clip in clips]
        return batches(lengths, lambda n, longest: n * longest <= most, ENCODER_BATCH)

    def _decoder_batches(self, clips) -> list[list[int]]:
        """Clips whose transcripts grow together, step by step."""
        config = self.backbone.config
        keys = 2 * config.decoder_layers * config.d_model / FRAME_PAIR
        lengths = [self._padded(clip) for clip in clips]
        return batches(
            lengths,
            lambda n, longest: n <= MOST_ROWS and n * longest * keys <= MOST_KEYS,
            DECODER_BATCH,
        )

    def _padded(self, clip: np.ndarray) -> int:
        return MAX_SAMPLES if self.pad_to_30s else len(clip) + MARGIN

    def _encode(self, clips: Sequence[np.ndarray], langs):
        device = self.backbone.hf.device
        lengths = torch.tensor([len(clip) for clip in clips], device=device)
        speech = torch.zeros(len(clips), int(lengths.max()), device=device)
        for row, clip in zip(speech, clips, strict=True):
            row[: len(clip)] = torch.from_numpy(clip)
        features = self.backbone.log_mel(speech, lengths, self.pad_to_30s)
        with self._autocast():
            return encode(self.backbone, self.system, *features, route=langs)

    def _autocast(self):
        return autocast_context(self.autocast, self.backbone.hf.device.type)

    def _result(self, hypothesis) -> Result:
        return Result(
            self.prompter.decode(hypothesis.tokens),
            hypothesis.lang,
            hypothesis.posteriors,
            hypothesis.score,
            self.prompter.tokens(hypothesis.tokens),
            hypothesis.ended,
        )


def _of(values, rows) -> list | None:
    return None if values is None else [values[i] for i in rows]


def _samples(speech: Speech) -> np.ndarray:
    if isinstance(speech, str | os.PathLike):
        samples = read_audio(speech)
    else:
        samples = np.asarray(speech, dtype=np.float32)
    if samples.ndim != 1 or not 0 < len(samples) <= MAX_SAMPLES:
        raise ValueError(
            f"speech must be one channel of 1 to {MAX_SAMPLES} samples (30 s, 16 kHz), "
            f"but got shape {samples.shape}; split longer recordings first"
        )
    return samples
