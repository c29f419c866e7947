"""Audio files to what Whisper hears: one channel, 16 kHz, float32."""

from __future__ import annotations

import hashlib
import io
import os
import re
import subprocess
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import kaldiio
import numpy as np
import soundfile
import soxr

SAMPLE_RATE = 16_000
BLOCK = 2**20
"""Samples of a channel that are read at once."""


def read_audio(path: str | os.PathLike) -> np.ndarray:
    """Reads any file that libsndfile reads (wav, flac, ogg, mp3), Kaldi's pipe or ark.

    What else FFmpeg reads (m4a, mp4, webm, wma) it reads where PyAV is installed. Of a
    long file at another rate or with more channels, only a block is held beside the
    result.

    Args:
        path: A file, a shell command ending in ``|`` that writes one, or a place in
            an archive of them, ``data.ark:123``.

    Returns:
        Samples at 16 kHz in [-1, 1], (S,).

    Raises:
        ValueError: The file is missing, unreadable or has no samples, or the command
            fails.
    """
    try:
        samples_S = _read(str(path))
    except (soundfile.LibsndfileError, OSError, subprocess.SubprocessError) as error:
        raise ValueError(f"{path} must be a readable audio file: {error}") from error
    if len(samples_S) == 0:
        raise ValueError(f"{path} must have samples, but is empty")
    return samples_S


def _read(path: str) -> np.ndarray:
    ark = read_ark(path)
    if ark:
        return _collect(_by_libsndfile(_as_wav(*ark)))
    if path.rstrip().endswith("|"):
        command = path.rstrip()[:-1]
        run = subprocess.run(command, shell=True, check=True, stdout=subprocess.PIPE)
        return _collect(_by_libsndfile(io.BytesIO(run.stdout)))
    try:
        return _collect(_by_libsndfile(path))
    except soundfile.LibsndfileError as error:
        if not os.path.isfile(path):
            raise
        samples_S = _collect(_by_ffmpeg(path, error))
        if len(samples_S) == 0:  # FFmpeg takes some files for what they are not
            raise
        return samples_S


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


def _as_wav(samples_S: np.ndarray, rate: int) -> io.BytesIO:
    wav = io.BytesIO()
    soundfile.write(wav, samples_S, rate, format="WAV")
    wav.seek(0)
    return wav


def _collect(blocks: Iterable[np.ndarray]) -> np.ndarray:
    """Blocks of float32 as one array that grows in place."""
    samples = bytearray()
    for block_S in blocks:
        samples += block_S.astype(np.float32, copy=False).tobytes()
    return np.frombuffer(samples, np.float32)


def _by_libsndfile(source: str | io.BytesIO) -> Iterator[np.ndarray]:
    with soundfile.SoundFile(source) as file:
        blocks = (
            block_SC.mean(axis=1)
            for block_SC in file.blocks(BLOCK, dtype="float32", always_2d=True)
        )
        if file.samplerate == SAMPLE_RATE:
            yield from blocks
            return
        stream = soxr.ResampleStream(file.samplerate, SAMPLE_RATE, 1, dtype="float32")
        for block_S in blocks:
            yield stream.resample_chunk(block_S)
        yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def _by_ffmpeg(path: str, error: soundfile.LibsndfileError) -> Iterator[np.ndarray]:
    """What libsndfile does not read, if PyAV is there."""
    try:
        import av
    except ModuleNotFoundError:
        raise ValueError(
            f"{path} must be a readable audio file: {error} To read m4a, mp4 or webm: "
            f"pip install av, or ffmpeg -i {path} out.flac"
        ) from error
    try:
        with av.open(path) as container:
            stream = av.AudioResampler(format="fltp", rate=SAMPLE_RATE)
            if not container.streams.audio:
                raise error
            for frame in chain(container.decode(audio=0), [None]):  # None: the rest
                yield from (x.to_ndarray().mean(axis=0) for x in stream.resample(frame))
    except av.error.FFmpegError:
        raise error from None


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
