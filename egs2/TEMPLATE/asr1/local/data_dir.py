"""Kaldi-style data dirs: wav.scp, text, utt2lang, utt2spk and spk2utt."""

import hashlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from espnet_lora_experts import atomic


class Row(Protocol):
    """What a line of each table is made of."""

    utt: str  # unique, starts with the speaker
    speaker: str
    lang: str  # Whisper's code
    text: str  # one line
    audio: str | Path  # a file, or a command that ends in |


class Utterance(NamedTuple):
    """One utterance of a corpus; small, as a corpus has millions."""

    utt: str
    speaker: str
    lang: str
    text: str
    audio: str


def one_line(text: str) -> str:
    """Text with every run of whitespace made one space, as Kaldi's files need."""
    return " ".join(text.split())


def slug(name: str) -> str:
    """``name`` with everything but ASCII letters, digits and hyphens made ``_``."""
    return re.sub(r"[^A-Za-z0-9-]+", "_", name)


def draw(key: str, seed: int) -> float:
    """A number in [0, 1) that depends on ``key`` and ``seed`` alone."""
    bits = hashlib.sha256(f"{seed}:{key}".encode()).digest()[:8]
    return int.from_bytes(bits, "big") / 2**64


def write_kaldi(folder: Path, rows: Sequence[Row]) -> None:
    """Write wav.scp, text, utt2lang, utt2spk and spk2utt, sorted by key.

    Raises:
        ValueError: When two rows have one ``utt``.
    """
    repeated = [utt for utt, n in Counter(row.utt for row in rows).items() if n > 1]
    if repeated:
        raise ValueError(f"utterance ids must be unique, but got {repeated[:5]} twice")
    rows = sorted(rows, key=lambda row: row.utt)
    speakers = defaultdict(list)
    for row in rows:
        speakers[row.speaker].append(row.utt)
    write_table(folder / "wav.scp", rows, lambda row: where(row.audio))
    write_table(folder / "text", rows, lambda row: row.text)
    write_table(folder / "utt2lang", rows, lambda row: row.lang)
    write_table(folder / "utt2spk", rows, lambda row: row.speaker)
    lines = [f"{name} {' '.join(utts)}\n" for name, utts in sorted(speakers.items())]
    atomic.write_text(folder / "spk2utt", "".join(lines))


def where(audio: str | Path) -> str:
    """The value of wav.scp: a file's full path, or the command as it is."""
    is_command = isinstance(audio, str) and audio.endswith("|")
    return str(audio) if is_command else os.path.abspath(audio)


def write_table(path: Path, rows: Sequence[Row], value: Callable[[Row], str]) -> None:
    """Write ``<utt> <value>`` lines of rows that are sorted."""
    atomic.write_text(path, "".join(f"{row.utt} {value(row)}\n" for row in rows))
