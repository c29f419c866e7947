"""What a user gives to be transcribed: files, arrays, tensors, of any length."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from espnet_lora_experts.inference.segmentation import Span
from espnet_lora_experts.whisper.audio import SAMPLE_RATE, read_audio

Speech = str | os.PathLike | np.ndarray | torch.Tensor
POOL = 3600 * SAMPLE_RATE
"""Samples after which what was read is transcribed, before more is read."""


@dataclass(frozen=True)
class Recording:
    """Samples, and where in them the segments are."""

    samples_S: np.ndarray
    spans: list[Span]

    @property
    def clips(self) -> list[np.ndarray]:
        """The segments' samples, without a copy."""
        return [self.samples_S[start:end] for start, end in self.spans]

    @property
    def times(self) -> list[tuple[float, float]]:
        """Start and end of each segment in seconds."""
        return [(start / SAMPLE_RATE, end / SAMPLE_RATE) for start, end in self.spans]


def pools(
    speech: Iterable[Speech], cut: Callable[[np.ndarray], list[Span]]
) -> Iterator[list[Recording]]:
    """Reads recordings, an hour or one long recording at a time.

    Args:
        speech: See :func:`read`.
        cut: Takes samples to the segments' spans.
    """
    pool: list[Recording] = []
    held = 0
    for one in speech:
        samples_S = read(one)
        pool.append(Recording(samples_S, cut(samples_S)))
        held += len(samples_S)
        if held >= POOL:
            yield pool
            pool, held = [], 0
    if pool:
        yield pool


def read(speech: Speech) -> np.ndarray:
    """Samples of one recording at 16 kHz, float32, (S,).

    Args:
        speech: Path of a file of any rate, or one channel at 16 kHz: numbers in
            [-1, 1], or integers of their type's range.

    Raises:
        ValueError: An unreadable file, no samples, several channels, or a sample that
            is no number.
    """
    if isinstance(speech, str | os.PathLike):
        samples_S, what = read_audio(speech), speech
    else:
        samples_S, what = _as_float(speech), "speech"
    if not np.isfinite(samples_S.sum()):
        raise ValueError(f"{what} must have finite samples, but has NaN or infinity")
    return samples_S


def _as_float(speech: np.ndarray | torch.Tensor) -> np.ndarray:
    if isinstance(speech, torch.Tensor):
        speech = speech.detach().cpu().numpy()
    samples_S = np.asarray(speech)
    if samples_S.ndim != 1 or len(samples_S) == 0:
        raise ValueError(
            "speech must be samples of one channel at 16 kHz, but got shape "
            f"{samples_S.shape}; give the mean of several channels, and recordings of "
            "their own as a list"
        )
    if np.issubdtype(samples_S.dtype, np.integer):
        scale = np.float32(np.iinfo(samples_S.dtype).max)
        samples_S = samples_S.astype(np.float32) / scale
    return samples_S.astype(np.float32, copy=False)
