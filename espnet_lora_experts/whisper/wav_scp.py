"""Entries of a data dir's ``wav.scp``: a file, a place in an archive, or a command.

Only what reads data dirs runs commands; who lists one vouches for its ``wav.scp``.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import subprocess
from pathlib import Path

import kaldiio
import numpy as np
import soundfile

from espnet_lora_experts import atomic
from espnet_lora_experts.whisper.audio import SAMPLE_RATE, read_audio, read_bytes


def read_entry(entry: str | os.PathLike) -> np.ndarray:
    """Reads what an entry names, see :func:`~.audio.read_audio`.

    Args:
        entry: A file, a place in an archive of them, ``data.ark:123``, or a shell
            command ending in ``|`` that writes one.

    Returns:
        Samples at 16 kHz in [-1, 1], (S,).

    Raises:
        ValueError: The file is missing, unreadable or has no samples, or the command
            fails.
    """
    entry = str(entry)
    try:
        content = _content(entry)
    except (OSError, subprocess.SubprocessError) as error:
        raise ValueError(f"{entry} must be a readable audio file: {error}") from error
    return read_audio(entry) if content is None else read_bytes(content, entry)


def _content(entry: str) -> bytes | None:
    """Of an audio file that is no file by itself; None of one that is."""
    if ark := read_ark(entry):
        return _as_wav(*ark)
    if not entry.rstrip().endswith("|"):
        return None
    command = entry.rstrip()[:-1]
    run = subprocess.run(command, shell=True, check=True, stdout=subprocess.PIPE)
    return run.stdout


def read_ark(path: str) -> tuple[np.ndarray, int] | None:
    """Samples (S,) or (S, C) and rate of ``data.ark:123``; None of any other path.

    Raises:
        ValueError: There is no audio at that place.
    """
    if not re.search(r"\.ark:\d+$", path):
        return None
    found = kaldiio.load_mat(path)
    if not isinstance(found, tuple):
        raise ValueError(f"{path} must be audio, but is a matrix of {found.shape}")
    rate, samples_S = found
    return samples_S, int(rate)


def _as_wav(samples_S: np.ndarray, rate: int) -> bytes:
    wav = io.BytesIO()
    soundfile.write(wav, samples_S, rate, format="WAV")
    return wav.getvalue()


def convert_entry(source: str, path: Path) -> int:
    """Writes what :func:`read_entry` gives as FLAC; a file of the same source stays.

    The file holds a hash of its source's name, date and size as a comment, by which a
    changed source is noticed. Of a pipe, the files that its command names count.

    Args:
        source: As :func:`read_entry` takes it.
        path: File to write, whole or not at all.

    Returns:
        Number of samples.

    Raises:
        ValueError: As :func:`read_entry`.
    """
    stamp = _stamp(source)
    kept = _samples_of(path, stamp)
    if kept is not None:
        return kept
    samples_S = read_entry(source)
    flac = io.BytesIO()  # libsndfile does not say when a disk is full
    kind = {"samplerate": SAMPLE_RATE, "channels": 1, "format": "FLAC"}
    with soundfile.SoundFile(flac, "w", **kind) as file:
        file.comment = stamp
        file.write(samples_S)
    with atomic.file(path) as temp:
        temp.write_bytes(flac.getbuffer())
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
