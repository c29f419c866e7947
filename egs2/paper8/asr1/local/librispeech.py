"""LibriSpeech: LibriSpeech/<part>/<speaker>/<chapter>/*.flac and *.trans.txt."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import corpus
import espnet_data
import fetch
from data_dir import Utterance, one_line

URL = "https://www.openslr.org/resources/12"
MD5 = {
    "train-clean-100": "2a93770f6d5c6c964bc36631d331a522",
    "train-clean-360": "c0e676e450a7ff2f54aeade5171606fa",
    "train-other-500": "d1a0fd59409feb2c614ce4d30c387708",
    "dev-clean": "42e2234ba48799c1f50f24a7926300a1",
    "dev-other": "c8d0bcc9cca99d4f8b62fcc847357931",
    "test-clean": "32fa31d27d2e1cad72775fee3f4849a9",
    "test-other": "fb5a50374b501bb3bac4815ee91d3135",
}
PARTS = {
    split: tuple(part for part in MD5 if part.startswith(split))
    for split in ("train", "dev", "test")
}
SCRIPT = espnet_data.Script("librispeech", "LIBRISPEECH", ("perl", "flac"))


def locate(root: Path, part: str) -> Path:
    """Folder of a part, downloaded where it is not there.

    Raises:
        ValueError: It cannot be had; says what to put where.
    """
    inner = f"LibriSpeech/{part}"
    archive = root / f"{part}.tar.gz"
    return fetch.provide(
        root / inner, inner, archive, f"{URL}/{archive.name}", MD5[part]
    )


def read(folder: Path, lang: str = "en") -> Iterator[Utterance]:
    """Utterances of a part."""
    for path in sorted(folder.glob("*/*/*.trans.txt")):
        reader = path.parent.parent.name
        for line in corpus.lines_of(path):
            name, _, text = line.partition(" ")
            audio = f"{path.parent}/{name}.flac"
            yield Utterance(
                f"{lang}_{name}", f"{lang}_{reader}", lang, one_line(text), audio
            )


def reader(root: Path, parts: dict[str, tuple[str, ...]], espnet: Path | None):
    """The function that reads a split, ours or ESPnet's (which wants every part)."""

    @cache
    def made() -> Path:
        for part in MD5:
            locate(root, part)
        options = ["--stage", "2", "--stop_stage", "3"]
        return espnet_data.run(espnet, SCRIPT, root, options)

    def read_split(lang: str, split: str) -> Iterator[Utterance]:
        for part in parts[split]:
            if espnet:
                yield from espnet_data.rows(made() / part.replace("-", "_"), lang)
            else:
                yield from read(locate(root, part), lang)

    return read_split
