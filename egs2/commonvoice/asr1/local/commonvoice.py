#!/usr/bin/env python3
"""Common Voice of any release: <release>/<locale>/{train,dev,test}.tsv and clips/."""

import csv
import logging
import re
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

import corpus
import espnet_data
import fetch
from data_dir import Utterance, one_line, slug

from espnet_lora_experts.bin import cli

logger = logging.getLogger(__name__)
LOCALES = {
    "zh": "zh-CN",
    "sv": "sv-SE",
    "pa": "pa-IN",
    "ne": "ne-NP",
    "hy": "hy-AM",
    "nn": "nn-NO",
    "no": "nb-NO",
    "fy": "fy-NL",
    "ga": "ga-IE",
    "rm": "rm-sursilv",
}
"""Where Common Voice's name of a language is not Whisper's code."""
PINNED = "cv-corpus-5.1-2020-06-22"
COLUMNS = "client_id path sentence up_votes down_votes age gender accent".split()
"""Release and columns that ESPnet's script knows."""
SCRIPT = espnet_data.Script("commonvoice", "COMMONVOICE", ("perl", "ffmpeg"), ())
WHERE = "its licence is accepted once on commonvoice.mozilla.org/datasets"


def release_of(folder: Path) -> tuple[int, ...]:
    """A release's number, to compare: cv-corpus-9.0-2022-04-27 is older than 21.0."""
    match = re.match(r"cv-corpus-(\d+(?:\.\d+)*?)(?:\.0)*(?!\.?\d)", folder.name)
    return tuple(map(int, match[1].split("."))) if match else ()


def locate(root: Path, locale: str, version: str) -> Path:
    """Folder of a locale: unpacked, or in an archive that is unpacked now.

    Args:
        root: Has <release>/<locale>, or <locale>, or archives as they are downloaded.
        locale: Common Voice's name of a language.
        version: ``21.0`` or ``cv-corpus-21.0-2025-03-14``; "": the newest there.

    Raises:
        ValueError: It is not there; says what to put where.
    """
    for archive in sorted(root.glob(f"*cv-corpus-*-{locale}.tar.gz")):
        name = re.search(rf"(cv-corpus-[\d.]+-[\d-]+)-{locale}\.tar\.gz", archive.name)
        inner = Path(name[1] if name else "delta", locale)
        if not (root / inner).is_dir() and is_wanted(inner.parent, version):
            fetch.unpack(archive, root / inner, str(inner))
    found = [p for p in root.glob(f"cv-corpus-*/{locale}") if (p / "clips").is_dir()]
    found = [path for path in found if is_wanted(path.parent, version)]
    if found:
        return max(found, key=lambda path: release_of(path.parent))
    if (root / locale / "clips").is_dir() and (not version or is_wanted(root, version)):
        return root / locale
    releases = sorted(path.name for path in root.glob("cv-corpus-*"))
    raise ValueError(
        f"Common Voice's {locale}{f' of release {version}' if version else ''} must be"
        f" in {root.absolute()}, but is not; {WHERE}: put"
        f" cv-corpus-<version>-<date>-{locale}.tar.gz, or its folder"
        f" cv-corpus-<version>-<date>/{locale}, there, or name another folder with"
        f" --commonvoice, or COMMONVOICE in db.sh. There is: {releases or 'none'}"
    )


def is_wanted(release: Path, version: str) -> bool:
    """Whether a release is the given one; deltas have no splits."""
    numbers = release_of(release)
    wanted = version in ("", release.name) or numbers == release_of(
        Path(f"cv-corpus-{version}")
    )
    return wanted and "delta" not in release.name


def table(path: Path) -> Iterator[dict[str, str]]:
    """Rows of a tsv file; columns differ between releases, quotes are plain letters.

    Raises:
        ValueError: A column that is needed is missing.
    """
    with path.open(encoding="utf-8", newline="") as stream:
        options = {"delimiter": "\t", "quoting": csv.QUOTE_NONE, "restval": ""}
        reader = csv.DictReader(stream, **options)
        missing = set(COLUMNS[:3]) - set(reader.fieldnames or ())
        if missing:
            raise ValueError(
                f"{path} must have the columns {COLUMNS[:3]}, but lacks"
                f" {sorted(missing)}; it has {reader.fieldnames}"
            )
        yield from reader


def read(folder: Path, lang: str, split: str) -> Iterator[Utterance]:
    """Utterances of an official split, in the order of its tsv."""
    path = corpus.required(folder / f"{split}.tsv", f"Common Voice's {lang}")
    for row in table(path):
        name = Path(row["path"])
        name = name if name.suffix else name.with_suffix(".mp3")
        speaker = f"{lang}_{row['client_id'][:16]}"
        yield Utterance(
            utt=f"{speaker}_{slug(name.stem)}",
            speaker=speaker,
            lang=lang,
            text=one_line(row["sentence"]),
            audio=f"{folder}/clips/{name}",
        )


def by_espnet(root: Path, folder: Path) -> Path:
    """Data dirs of ESPnet's script, of any release and with the official splits.

    Its release is a folder of links, with the release's rows in the columns it knows.
    Its training set is ``validated`` without dev and test: that becomes train.
    """
    home = Path(espnet_data.HERE, "corpora").absolute()
    pinned = home / PINNED / folder.name
    pinned.mkdir(parents=True, exist_ok=True)
    (pinned / "clips").unlink(missing_ok=True)
    (pinned / "clips").symlink_to((folder / "clips").absolute())
    for name in ("train", "dev", "test"):
        path = corpus.required(folder / f"{name}.tsv", "Common Voice")
        rows = [[row.get(key, "") for key in COLUMNS] for row in table(path)]
        target = pinned / f"{name}.tsv".replace("train", "validated")
        with target.open("w", encoding="utf-8") as stream:
            stream.writelines("\t".join(row) + "\n" for row in [COLUMNS, *rows])
    return espnet_data.run(root, SCRIPT, home, ["--lang", folder.name])


def parse_locales(text: str) -> dict[str, str]:
    """Locales by languages, of ``zh=zh-TW yue=zh-HK``.

    Raises:
        ValueError: It is something else.
    """
    pairs = [pair.split("=") for pair in text.split()]
    if any(len(pair) != 2 or not all(pair) for pair in pairs):
        raise ValueError(f"--locales must be like zh=zh-TW yue=zh-HK, but got {text!r}")
    return dict(pairs)


def reader(args) -> corpus.Read:
    """The function that reads a split, ours or ESPnet's."""
    locales = {**LOCALES, **parse_locales(args.locales)}
    root = espnet_data.root_of(args.espnet_root)

    @cache
    def folder_of(lang: str) -> Path:
        locale = locales.get(lang, lang)
        folder = locate(args.commonvoice, locale, args.cv_version)
        logger.info("%s: %s", lang, folder)
        return folder

    made = cache(partial(by_espnet, root)) if root else None

    def read_split(lang: str, split: str) -> Iterator[Utterance]:
        folder = folder_of(lang)
        if made is None:
            return read(folder, lang, split)
        name = f"{split}_{folder.name}".replace("-", "_")
        return espnet_data.rows(made(folder) / name, lang)

    return read_split


def add_options(parser) -> None:
    """What is Common Voice's own."""
    add = parser.add_argument
    add("--commonvoice", type=Path, default=Path("downloads"), help="its folder")
    add(
        "--cv_version", default="", help="release, e.g. 21.0; default: the newest there"
    )
    add("--locales", default="", help='e.g. "zh=zh-TW yue=zh-HK", where not the code')


def main(cmd: list[str] | None = None) -> None:
    """Write data/{train,dev,test}."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = corpus.get_parser(__doc__)
    add_options(parser)
    espnet_data.add_option(parser)
    args = parser.parse_args(cmd)
    corpus.prepare(args, corpus.parse_langs(args.langs), reader(args))


if __name__ == "__main__":
    cli.run(main)
