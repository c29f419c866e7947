"""AISHELL-1: data_aishell/wav/<split>/<speaker>/*.wav, transcript/*_v0.8.txt."""

import os
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import corpus
import espnet_data
import fetch
from data_dir import Utterance

from espnet_lora_experts import atomic

URL = "https://www.openslr.org/resources/33/data_aishell.tgz"
MD5 = "2f494334227864a8a8fec932999db9d8"
NAME = "data_aishell"
TRANSCRIPT = "transcript/aishell_transcript_v0.8.txt"
SCRIPT = espnet_data.Script("aishell", "AISHELL")


def locate(root: Path) -> Path:
    """Its folder, downloaded where it is not there; speakers' archives unpacked.

    Raises:
        ValueError: It cannot be had; says what to put where.
    """
    folder = fetch.provide(root / NAME, NAME, root / f"{NAME}.tgz", URL, MD5)
    for archive in sorted((folder / "wav").glob("*.tar.gz")):
        unpack_speaker(archive)
    return folder


def unpack_speaker(archive: Path) -> None:
    """Unpack wav/S0002.tar.gz, which holds train/S0002/*.wav, where it is not yet."""
    if not is_unpacked(archive):
        with atomic.alone(archive):
            if not is_unpacked(archive):  # else another process was first
                _unpack_speaker(archive)


def is_unpacked(archive: Path) -> bool:
    """Whether a split has the speaker's folder."""
    return any(archive.parent.glob(f"*/{archive.name.removesuffix('.tar.gz')}"))


def _unpack_speaker(archive: Path) -> None:
    wav = archive.parent
    with tempfile.TemporaryDirectory(dir=wav, prefix=".") as scratch:
        inner = Path(scratch, "speaker")
        fetch.unpack(archive, inner, ".")
        for speaker in inner.glob("*/*"):
            (wav / speaker.parent.name).mkdir(exist_ok=True)
            os.replace(speaker, wav / speaker.parent.name / speaker.name)


@cache
def texts(folder: Path) -> dict[str, str]:
    """Text of each utterance, without the spaces between words."""
    path = corpus.required(folder / TRANSCRIPT, "AISHELL")
    rows = (line.split() for line in corpus.lines_of(path))
    return {row[0]: "".join(row[1:]) for row in rows if row}


def read(folder: Path, lang: str, split: str) -> Iterator[Utterance]:
    """Utterances of an official split: all wav files, all texts of their speakers."""
    home = corpus.required(folder / "wav" / split, "AISHELL")
    for speaker in sorted(path for path in home.iterdir() if path.is_dir()):
        names = {path.stem for path in speaker.glob("*.wav")}
        names |= {name for name in texts_by_speaker(folder).get(speaker.name, ())}
        for name in sorted(names):
            yield Utterance(
                utt=f"{lang}_{name}",
                speaker=f"{lang}_{name[:11]}",
                lang=lang,
                text=texts(folder).get(name, ""),
                audio=f"{speaker}/{name}.wav",
            )


@cache
def texts_by_speaker(folder: Path) -> dict[str, list[str]]:
    """Utterances of each speaker: BAC009S0002W0122 is S0002's."""
    speakers: dict[str, list[str]] = {}
    for name in texts(folder):
        speakers.setdefault(name[6:11], []).append(name)
    return speakers


def reader(root: Path, espnet: Path | None) -> corpus.Read:
    """The function that reads a split, ours or ESPnet's."""

    @cache
    def made() -> Path:
        locate(root)
        return espnet_data.run(espnet, SCRIPT, root, [])

    def read_split(lang: str, split: str) -> Iterator[Utterance]:
        if espnet:
            return espnet_data.rows(made() / split, lang)
        return read(locate(root), lang, split)

    return read_split
