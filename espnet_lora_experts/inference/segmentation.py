"""How a recording is cut into segments that Whisper can hear."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from espnet_lora_experts.whisper.audio import SAMPLE_RATE
from espnet_lora_experts.whisper.features import MAX_SAMPLES

Span = tuple[int, int]
"""First sample of a segment and the one after its last."""
METHODS = ("auto", "vad", "windows")
SILENT = 1e-4
"""Peak below which nothing can be heard: three steps of 16 bits."""
HOP = SAMPLE_RATE // 50


@dataclass(frozen=True)
class Segmentation:
    """Cuts recordings.

    Attributes:
        method: ``auto`` leaves clips of up to 30 s whole and cuts longer recordings by
            voice activity; ``vad`` looks for voices in short clips as well; ``windows``
            cuts longer recordings into equal windows, each cut moved to the quietest
            moment nearby, whatever is heard there.
        max_segment: Most seconds of a segment that was cut.
        min_pause: Seconds without voice that end a segment; shorter ones are within
            it. A system that was trained on single sentences wants them apart, and so
            does speech that changes its language; Whisper as it came likes context.

    Raises:
        ValueError: Unknown method, a segment could exceed 30 s, or a pause below 0.1 s.
    """

    method: str = "auto"
    max_segment: float = 28.0
    min_pause: float = 0.4

    def __post_init__(self):
        if self.method not in METHODS:
            raise ValueError(
                f"segmentation must be one of {METHODS}, but got {self.method!r}"
            )
        if not 1 <= self.max_segment <= 30:
            raise ValueError(
                f"max_segment must be 1 to 30 seconds, but got {self.max_segment}"
            )
        if not 0.1 <= self.min_pause:
            raise ValueError(
                f"min_pause must be 0.1 seconds or more, but got {self.min_pause}"
            )

    def __call__(self, samples_S: np.ndarray) -> list[Span]:
        """The segments of a recording in order; none where nothing is heard."""
        most = int(self.max_segment * SAMPLE_RATE)
        if self.method != "vad" and len(samples_S) <= MAX_SAMPLES:
            spans = [(0, len(samples_S))]
        elif self.method == "windows":
            spans = windows(samples_S, most)
        else:
            from espnet_lora_experts.inference.voice import speech_spans

            spans = speech_spans(samples_S, most, self.min_pause)
        return [span for span in spans if _is_heard(samples_S[slice(*span)])]


def windows(samples_S: np.ndarray, most: int) -> list[Span]:
    """Windows without overlap, so that no word is transcribed twice.

    They are of one length L, but each cut moves by up to L / 8 to the middle of the
    quietest 0.2 s.

    Args:
        samples_S: The recording.
        most: Most samples of a window.
    """
    count = -(-len(samples_S) * 5 // (most * 4))  # L + 2 L / 8 is at most ``most``
    length = len(samples_S) // count
    cuts = [0]
    for middle in range(length, length * count, length):
        first = middle - length // 8
        cuts.append(first + _quietest(samples_S[first : middle + length // 8]))
    return list(zip(cuts, [*cuts[1:], len(samples_S)], strict=True))


def _quietest(samples_S: np.ndarray) -> int:
    """The middle of the quietest 0.2 s."""
    frames = samples_S[: len(samples_S) // HOP * HOP].reshape(-1, HOP)
    power = np.convolve(np.square(frames).mean(axis=1), np.ones(10), "valid")
    return (int(power.argmin()) + 5) * HOP


def _is_heard(samples_S: np.ndarray) -> bool:
    return max(samples_S.max(), -samples_S.min()) > SILENT
