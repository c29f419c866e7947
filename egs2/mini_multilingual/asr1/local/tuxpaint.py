"""Tux Paint's stamps: a short spoken description of each picture.

``<stamp>_desc_<lang>.ogg`` is the recording; the line ``<lang>.utf8=<text>`` of
``<stamp>.txt`` is what it says. The first line of that file is the English text.
"""

import re
from pathlib import Path

from clips import Clip, digest, text_key
from data_dir import one_line, slug

PACKAGE = "tuxpaint-stamps-default"
LANGS = ("be", "bg", "ca", "da", "el", "es", "fr", "ro", "ru")
ROOT = Path("usr/share/tuxpaint/stamps")


def read(root: Path, langs: list[str]) -> list[Clip]:
    """Clips of the given languages under a folder of stamps.

    Stamps that share a sentence or a recording in any language are one group, so a
    stamp's translations and its look-alikes never fall into different splits. Groups
    do not depend on ``langs``.
    """
    texts = {stamp: read_texts(path) for stamp, path in stamps(root)}
    found = sorted(recordings(root))
    hashes = {path: digest(path) for _, _, path in found}
    links = [(stamp, hashes[path]) for stamp, _, path in found]
    for stamp, text in texts.items():
        keys = {lang: text_key(text.get(lang, "")) for lang in LANGS}
        links += [(stamp, f"{lang} {key}") for lang, key in keys.items() if key]
    groups = connect(links)
    return [
        Clip(
            utt=f"{lang}_tux_{slug(stamp)}",
            speaker=f"{lang}_tux",
            lang=lang,
            text=one_line(texts.get(stamp, {}).get(lang, "")),
            audio=path,
            group=f"tux:{groups[stamp]}",
            digest=hashes[path],
        )
        for stamp, lang, path in found
        if lang in langs
    ]


def stamps(root: Path):
    """Yield (stamp, its text file); a stamp is a path without suffix."""
    for path in sorted(root.rglob("*.txt")):
        yield path.relative_to(root).with_suffix("").as_posix(), path


def recordings(root: Path):
    """Yield (stamp, language, audio file)."""
    for path in root.rglob("*_desc_*.ogg"):
        match = re.fullmatch(rf"(.+)_desc_({'|'.join(LANGS)})\.ogg", path.name)
        if match:
            stamp = path.parent.relative_to(root) / match[1]
            yield stamp.as_posix(), match[2], path


def read_texts(path: Path) -> dict[str, str]:
    """Language to text of one stamp."""
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    matches = (re.match(r"([A-Za-z_@]+)\.utf8=(.*)", line) for line in lines)
    return {match[1]: match[2].strip() for match in matches if match}


def connect(links: list[tuple[str, str]]) -> dict[str, str]:
    """Map each stamp to the first stamp that it reaches through shared keys.

    Args:
        links: (stamp, key) pairs; stamps with a common key belong together.
    """
    parent: dict[str, str] = {}

    def root(node: str) -> str:
        while parent.setdefault(node, node) != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    owner: dict[str, str] = {}
    for stamp, key in links:
        a, b = root(stamp), root(owner.setdefault(key, stamp))
        parent[max(a, b)] = min(a, b)
    return {stamp: root(stamp) for stamp in list(parent)}
