"""The scripts that languages are written in, by Unicode's names of them."""

from collections.abc import Sequence
from functools import lru_cache

import regex

# Script or scripts: languages. All others are written in Latin letters.
_WRITTEN = """
Arabic: ar ckb fa ps ur; Arabic Devanagari: sd; Armenian: hy; Bengali: as bn;
Cyrillic: ba be bg cv kk ky mk mn ru tg tt uk; Devanagari: hi mr ne sa; Ethiopic: am;
Georgian: ka; Greek: el; Gujarati: gu; Gurmukhi Arabic: pa; Han: yue zh;
Han Hiragana Katakana: ja; Hangul Han: ko; Hebrew: he yi; Kannada: kn; Khmer: km;
Lao: lo; Latin Cyrillic: az bs sr tk uz; Malayalam: ml; Myanmar: my; Sinhala: si;
Tamil: ta; Telugu: te; Thai: th; Tibetan: bo
"""


def _rows() -> dict[str, tuple[str, ...]]:
    table = {}
    for row in _WRITTEN.replace("\n", " ").split(";"):
        scripts, codes = row.split(":")
        table |= dict.fromkeys(codes.split(), tuple(scripts.split()))
    return table


SCRIPTS = _rows()
LATIN = ("Latin",)


def mostly_other(text: str, scripts: Sequence[str], unspaced: bool) -> bool:
    """Whether more words of a text are in other scripts than in the given ones.

    A word is a run of letters of either kind, so that a name or a loan in Latin letters
    counts once however long it is. Without spaces each of the given scripts' letters
    counts, since a run of them is many words.

    Args:
        text: Any text; one without letters is of no other script.
        scripts: Unicode's names.
        unspaced: Whether the language puts no spaces between words.

    Example:
        >>> mostly_other("Привет", ["Latin"], False)
        True
        >>> mostly_other("ใช้ Facebook และ Twitter", ["Thai"], True)
        False
    """
    own, other = _patterns(tuple(scripts), unspaced)
    return len(other.findall(text)) > len(own.findall(text))


@lru_cache
def _patterns(scripts: tuple[str, ...], unspaced: bool) -> tuple:
    named = "".join(rf"\p{{Script={script}}}" for script in scripts)
    shared = r"\p{Script=Common}\p{Script=Inherited}"
    own = rf"(?V1)[[\p{{L}}\p{{M}}]&&[{named}]]"
    other = rf"(?V1)[[\p{{L}}\p{{M}}]--[{named}{shared}]]+"
    return regex.compile(own if unspaced else f"{own}+"), regex.compile(other)
