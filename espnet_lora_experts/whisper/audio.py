"""Audio files to what Whisper hears: one channel, 16 kHz, float32."""

from __future__ import annotations

import hashlib
import io
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import soundfile

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
    samples_S = samples_SC.mean(axis=1)
    if len(samples_S) == 0:
        raise ValueError(f"{path} must have samples, but is empty")
    if rate != SAMPLE_RATE:
        from librosa import resample  # a second, that prepared data does not need

        samples_S = resample(samples_S, orig_sr=rate, target_sr=SAMPLE_RATE)
    return samples_S.astype(np.float32)


def _read(path: str) -> tuple[np.ndarray, int]:
    if not path.rstrip().endswith("|"):
        return soundfile.read(path, dtype="float32", always_2d=True)
    command = path.rstrip()[:-1]
    run = subprocess.run(command, shell=True, check=True, stdout=subprocess.PIPE)
    return soundfile.read(io.BytesIO(run.stdout), dtype="float32", always_2d=True)


def convert_audio(source: str, path: Path) -> int:
    """Writes what :func:`read_audio` gives as FLAC; a file of the same source stays.

    The file holds a hash of its source's name, date and size as a comment, by which a
    changed source is noticed. Of a pipe, the files that its command names count.

    Args:
        source: As :func:`read_audio` takes it.
        path: File to write, whole or not at all.

    Returns:
        Number of samples.

    Raises:
        ValueError: As :func:`read_audio`.
    """
    stamp = _stamp(source)
    kept = _samples_of(path, stamp)
    if kept is not None:
        return kept
    samples_S = read_audio(source)
    temp = path.with_name(f".{path.name}")
    with soundfile.SoundFile(temp, "w", SAMPLE_RATE, 1, format="FLAC") as file:
        file.comment = stamp
        file.write(samples_S)
    temp.rename(path)
    return len(samples_S)


def _stamp(source: str) -> str:
    names = sorted({source, *re.split(r"[\s\"'<>|;&()]+", source)})
    found = [os.stat(name) for name in names if os.path.isfile(name)]
    facts = [source, *((file.st_mtime_ns, file.st_size) for file in found)]
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def _samples_of(path: Path, stamp: str) -> int | None:
    """Number of samples of a file with this stamp, None where there is none."""
    if not path.exists():
        return None
    try:
        with soundfile.SoundFile(path) as file:
            return file.frames if file.comment == stamp else None
    except soundfile.LibsndfileError:
        return None
