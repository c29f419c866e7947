"""Audio files to what Whisper hears: one channel, 16 kHz, float32."""

from __future__ import annotations

import io
import os
import subprocess

import numpy as np
import soundfile
from librosa import resample, to_mono

SAMPLE_RATE = 16_000


def read_audio(path: str | os.PathLike) -> np.ndarray:
    """Reads any file that libsndfile reads (wav, flac, ogg, mp3), or a Kaldi pipe.

    Args:
        path: A file, or a shell command ending in ``|`` that writes one.

    Returns:
        Samples at 16 kHz in [-1, 1], (S,).

    Raises:
        ValueError: The file is missing, unreadable or has no samples, or the command
            fails.
    """
    try:
        samples_SC, rate = _read(str(path))
    except (soundfile.LibsndfileError, OSError, subprocess.SubprocessError) as error:
        raise ValueError(f"{path} must be a readable audio file: {error}") from error
    samples_S = to_mono(samples_SC.T)
    if len(samples_S) == 0:
        raise ValueError(f"{path} must have samples, but is empty")
    if rate != SAMPLE_RATE:
        samples_S = resample(samples_S, orig_sr=rate, target_sr=SAMPLE_RATE)
    return samples_S.astype(np.float32)


def _read(path: str) -> tuple[np.ndarray, int]:
    if not path.rstrip().endswith("|"):
        return soundfile.read(path, dtype="float32", always_2d=True)
    command = path.rstrip()[:-1]
    run = subprocess.run(command, shell=True, check=True, stdout=subprocess.PIPE)
    return soundfile.read(io.BytesIO(run.stdout), dtype="float32", always_2d=True)
