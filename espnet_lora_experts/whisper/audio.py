"""Audio files to what Whisper hears: one channel, 16 kHz, float32."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

SAMPLE_RATE = 16_000
FFMPEG_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,asf,aac,ac3,eac3,amr,amrnb,amrwb,avi,caf,flv,"
    "mp3,mpeg,mpegts,ogg,rm,tta,wav,wv,ape,dts,aiff,flac,au"
)
"""Formats that FFmpeg may find: such as hold audio, not the names of other files."""
BLOCK = 2**20
"""Samples of all channels that are read at once."""
RATES = (1_000, 1_000_000)
"""Lowest and highest sampling rate in Hz of what may be speech."""
MOST_SECONDS = 24 * 3600.0
"""A few kilobytes of flac or mp3 can be months of silence."""


class TooLong(ValueError):
    """A recording is longer than it may be."""


def read_audio(
    path: str | os.PathLike, most_seconds: float = MOST_SECONDS
) -> np.ndarray:
    """Reads any file that libsndfile reads (wav, flac, ogg, mp3).

    What else FFmpeg reads (m4a, mp4, webm, wma) it reads where PyAV is installed. Of a
    long file at another rate or with more channels, only a block is held beside the
    result.

    Args:
        path: A file. A command, as in a data dir's ``wav.scp``, is none and is not run;
            see :func:`~.wav_scp.read_entry`.
        most_seconds: Length at which reading stops, whatever the header says.

    Returns:
        Samples at 16 kHz in [-1, 1], (S,).

    Raises:
        TooLong: It is longer than ``most_seconds``.
        ValueError: The file is missing, unreadable or has no samples.
    """
    name = str(path)
    if os.path.isfile(name):
        return _checked(lambda: _of_file(name, most_seconds), name)
    if not os.path.exists(name) or os.path.isdir(name):
        found = "is a command" if name.rstrip().endswith("|") else "there is none"
        raise ValueError(f"{name} must be a readable audio file, but {found}")
    # the shell's <(command)
    return read_bytes(Path(name).read_bytes(), name, most_seconds)


def read_bytes(
    content: bytes, name: str, most_seconds: float = MOST_SECONDS
) -> np.ndarray:
    """Reads the content of a file that libsndfile reads.

    Args:
        content: Of the file; its header may leave the length open.
        name: What to call it in an error.
        most_seconds: As of :func:`read_audio`.

    Returns:
        See :func:`read_audio`.

    Raises:
        TooLong: It is longer than ``most_seconds``.
        ValueError: It is no audio or has no samples.
    """
    return _checked(
        lambda: _collect(_by_libsndfile(io.BytesIO(content)), most_seconds), name
    )


def _checked(read: Callable[[], np.ndarray], name: str) -> np.ndarray:
    try:
        samples_S = read()
    except TooLong as error:
        raise TooLong(f"{name} {error}") from None
    except MemoryError as error:
        raise ValueError(f"{name} must fit into memory: cut it first") from error
    except (soundfile.LibsndfileError, OSError) as error:
        raise ValueError(f"{name} must be a readable audio file: {error}") from error
    if len(samples_S) == 0:
        raise ValueError(f"{name} must have samples, but is empty")
    return samples_S


def _of_file(path: str, most_seconds: float) -> np.ndarray:
    try:
        return _collect(_by_libsndfile(path), most_seconds)
    except soundfile.LibsndfileError as error:
        samples_S = _collect(_by_ffmpeg(path, error), most_seconds)
        if len(samples_S) == 0:  # FFmpeg takes some files for what they are not
            raise
        return samples_S


def _collect(blocks: Iterable[np.ndarray], most_seconds: float) -> np.ndarray:
    """Blocks of float32 as one array that grows in place."""
    samples = bytearray()
    most = 4 * int(most_seconds * SAMPLE_RATE)
    for block_S in blocks:
        samples += block_S.astype(np.float32, copy=False).tobytes()
        if len(samples) > most:
            raise TooLong(f"must be {_spoken(most_seconds)} long at most: cut it first")
    return np.frombuffer(samples, np.float32)


def _spoken(seconds: float) -> str:
    return f"{seconds / 3600:g} hours" if seconds >= 3600 else f"{seconds:g} s"


def _by_libsndfile(source: str | io.BytesIO) -> Iterator[np.ndarray]:
    with soundfile.SoundFile(source) as file:
        blocks = _blocks(file)
        if not RATES[0] <= file.samplerate <= RATES[1]:
            raise OSError(f"its rate of {file.samplerate} Hz is not one of speech")
        if file.samplerate == SAMPLE_RATE:
            yield from blocks
            return
        stream = soxr.ResampleStream(file.samplerate, SAMPLE_RATE, 1, dtype="float32")
        for block_S in blocks:
            yield stream.resample_chunk(block_S)
        yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def _blocks(file: soundfile.SoundFile) -> Iterator[np.ndarray]:
    """What is there; soundfile's own repeat the last block as a header says."""
    most = max(1, BLOCK // file.channels)
    while len(block_SC := file.read(most, dtype="float32", always_2d=True)):
        yield block_SC.mean(axis=1)


def _mean(frame: Any) -> np.ndarray:
    """Of the channels of PyAV's frame, which has them beside each other.

    Of more than 8 channels one after the other, PyAV reads memory that is not theirs.
    """
    return frame.to_ndarray().reshape(-1, frame.layout.nb_channels).mean(axis=1)


def _form(frame: Any) -> tuple[str, str, int]:
    """What may change within a stream, for example where broadcasts were joined."""
    return frame.format.name, frame.layout.name, frame.sample_rate


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
        # A playlist could name other files, or machines.
        with av.open(path, options={"format_whitelist": FFMPEG_FORMATS}) as container:
            if not container.streams.audio:
                raise error
            for _, frames in groupby(container.decode(audio=0), _form):
                stream = av.AudioResampler(format="flt", rate=SAMPLE_RATE)
                for frame in chain(frames, [None]):  # None: the rest
                    yield from map(_mean, stream.resample(frame))
    except av.error.FFmpegError:
        raise error from None
