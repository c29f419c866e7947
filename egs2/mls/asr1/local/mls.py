#!/usr/bin/env python3
"""MLS: mls_<language>/<split>/transcripts.txt and audio/<speaker>/<book>/<id>.flac.

Archives of flac are downloaded where a language is not there; mls_<language>_opus is
read too, if it is.
"""

import logging
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import corpus
import espnet_data
import fetch
from data_dir import Utterance, one_line

from espnet_lora_experts import atomic
from espnet_lora_experts.bin import cli
from espnet_lora_experts.whisper import languages

URL = "https://dl.fbaipublicfiles.com/mls"
SUMS = "md5sum.txt"
LANGS = ("de", "en", "es", "fr", "it", "nl", "pl", "pt")
HANDLES = {"1h": ["1hr/*"], "10h": ["1hr/*", "9hr"]}
"""Official small training sets, in train/limited_supervision."""
SCRIPT = espnet_data.Script("mls", "MLS", ("perl", "flac", "wget"))


def locate(root: Path, lang: str) -> Path:
    """Folder of a language: flac, or else opus; downloaded where there is neither.

    Raises:
        ValueError: It cannot be had; says what to put where.
    """
    name = f"mls_{languages.get(lang).name}"
    if (root / f"{name}_opus").is_dir() and not (root / name).is_dir():
        return root / f"{name}_opus"
    archive = root / f"{name}.tar.gz"
    have = (root / name).is_dir() or archive.is_file()
    md5 = "" if have else published_md5(archive)
    return fetch.provide(root / name, name, archive, f"{URL}/{archive.name}", md5)


def published_md5(archive: Path) -> str:
    """The archive's hash, as its publisher lists it."""
    sums = archive.with_name(SUMS)
    if not sums.is_file():
        fetch.fetch(f"{URL}/{SUMS}", sums)
    rows = (line.split() for line in corpus.lines_of(sums) if line.strip())
    return {name: digest for digest, name in rows}.get(archive.name, "")


def read(
    folder: Path, lang: str, split: str, supervision: str = "full"
) -> Iterator[Utterance]:
    """Utterances of an official split; of train, those of a limited supervision."""
    what = f"MLS's {lang}"
    path = corpus.required(folder / split / "transcripts.txt", what)
    suffix = "opus" if folder.name.endswith("_opus") else "flac"
    wanted = None
    if split == "train" and supervision != "full":
        wanted = handles(folder, lang, supervision)
    for line in corpus.lines_of(path):
        name, _, text = line.partition("\t")
        if not name or (wanted is not None and name not in wanted):
            continue
        speaker, book, *_ = name.split("_")
        audio = f"{folder}/{split}/audio/{speaker}/{book}/{name}.{suffix}"
        yield Utterance(
            f"{lang}_{name}", f"{lang}_{speaker}", lang, one_line(text), audio
        )


def handles(folder: Path, lang: str, supervision: str) -> set[str]:
    """Ids of a small training set."""
    home = corpus.required(folder / "train/limited_supervision", f"MLS's {lang}")
    found = [
        path for p in HANDLES[supervision] for path in home.glob(f"{p}/handles.txt")
    ]
    return {line.strip() for path in found for line in corpus.lines_of(path)}


def by_espnet(root: Path, folder: Path, lang: str, supervision: str) -> Path:
    """Data dirs of ESPnet's script.

    It would also download hashes and texts for language models: both are empty here.
    """
    home = Path(espnet_data.HERE, "corpora").absolute()
    atomic.write_text(home / SUMS, "")
    atomic.write_text(home / f"mls_lm_{languages.get(lang).name}/data.txt", "\n")
    link = home / f"mls_{languages.get(lang).name}"
    link.unlink(missing_ok=True)
    link.symlink_to(folder.absolute())
    options = ["--lang", lang, "--data_split", supervision]
    return espnet_data.run(root, SCRIPT, home, options)


def reader(args) -> corpus.Read:
    """The function that reads a split, ours or ESPnet's."""
    root = espnet_data.root_of(args.espnet_root)

    @cache
    def folder_of(lang: str) -> Path:
        folder = locate(args.mls, lang)
        return by_espnet(root, folder, lang, args.supervision) if root else folder

    def read_split(lang: str, split: str) -> Iterator[Utterance]:
        if root:
            return espnet_data.rows(folder_of(lang) / f"mls_{lang}_{split}", lang)
        return read(folder_of(lang), lang, split, args.supervision)

    return read_split


def main(cmd: list[str] | None = None) -> None:
    """Write data/{train,dev,test}."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = corpus.get_parser(__doc__)
    add = parser.add_argument
    add("--mls", type=Path, default=Path("downloads"), help="its folder")
    add("--supervision", default="full", choices=["full", *HANDLES], help="of train")
    espnet_data.add_option(parser)
    args = parser.parse_args(cmd)
    corpus.prepare(args, corpus.parse_langs(args.langs, LANGS), reader(args))


if __name__ == "__main__":
    cli.run(main)
