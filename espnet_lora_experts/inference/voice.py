"""Voice activity: where in a recording somebody speaks, by silero-vad.

Names of dimensions: R rows, S samples, F frames of 32 ms.
"""

from __future__ import annotations

from functools import cache
from threading import Lock

import numpy as np
import torch

from espnet_lora_experts.inference.segmentation import Span
from espnet_lora_experts.whisper.audio import SAMPLE_RATE

FRAME = 512  # samples behind one probability
ROW = 60 * SAMPLE_RATE // FRAME * FRAME
"""Samples of a minute: as many minutes as :data:`ROWS` are read side by side."""
ROWS = 16
LEAD = 5 * SAMPLE_RATE // FRAME * FRAME
"""Samples before each row that the model hears first: it remembers."""
_HEARING = Lock()
"""One recording at a time: the model remembers what it heard before."""
PAD_MS = 100
"""Milliseconds that a segment begins before the voice and ends after it."""


def speech_spans(samples_S: np.ndarray, most: int, min_pause: float) -> list[Span]:
    """Where somebody speaks.

    Source: silero-vad, https://github.com/snakers4/silero-vad (MIT); its own defaults
    but for the times.

    Args:
        samples_S: Samples at 16 kHz in [-1, 1].
        most: Most samples of a span; a longer one is cut in its longest pause.
        min_pause: Seconds without voice that end a span.

    Returns:
        First sample and the one after the last of each span, in order.

    Raises:
        ValueError: silero-vad is not installed.
    """
    spans = _silero().get_speech_timestamps_from_probs(
        speech_probabilities(samples_S).tolist(),
        sampling_rate=SAMPLE_RATE,
        max_speech_duration_s=most / SAMPLE_RATE,
        min_silence_duration_ms=round(1000 * min_pause),
        speech_pad_ms=PAD_MS,
        audio_length_samples=len(samples_S),
    )
    return [(span["start"], span["end"]) for span in spans]


def speech_probabilities(samples_S: np.ndarray) -> np.ndarray:
    """Probability that somebody speaks in each frame of 32 ms, (F,)."""
    parts = []
    for start in range(0, len(samples_S), ROWS * ROW):
        rows_RS = _rows(samples_S, start)
        speech_RS = torch.from_numpy(rows_RS)
        with _HEARING, torch.no_grad():
            with torch.jit.optimized_execution(False):  # a third faster
                found_RF = _model().audio_forward(speech_RS, SAMPLE_RATE)
        parts.append(found_RF[:, LEAD // FRAME :].flatten().numpy())
    return np.concatenate(parts)[: -(-len(samples_S) // FRAME)]


def _rows(samples_S: np.ndarray, start: int) -> np.ndarray:
    """Up to :data:`ROWS` minutes from ``start`` on, each after its lead, (R, S)."""
    left = len(samples_S) - start
    width = min(ROW, -(-left // FRAME) * FRAME)
    rows_RS = np.zeros((min(ROWS, -(-left // width)), LEAD + width), np.float32)
    for r, row_S in enumerate(rows_RS):
        begin = start + r * width - LEAD
        piece_S = samples_S[max(begin, 0) : begin + len(row_S)]
        row_S[max(-begin, 0) :][: len(piece_S)] = piece_S
    return rows_RS


@cache
def _model() -> torch.jit.ScriptModule:
    return _silero().load_silero_vad()


def _silero():
    """The package; to import it must not change how many threads torch uses."""
    threads = torch.get_num_threads()
    try:
        import silero_vad
    except ModuleNotFoundError as error:
        raise ValueError(
            "recordings over 30 s need the package silero-vad, but it is not "
            "installed; pip install silero-vad, or give segmentation='windows'"
        ) from error
    finally:
        torch.set_num_threads(threads)
    return silero_vad
