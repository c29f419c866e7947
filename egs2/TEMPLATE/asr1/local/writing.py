"""Which scripts a language is written in, to find text that is not its own."""

import unicodedata
from functools import cache

_OTHERS = """
ARABIC ar ckb fa ps sd ug ur, ARMENIAN hy, BENGALI as bn,
CJK ja ko yue zh, CYRILLIC ab ba be bg cv kk ky mk mn ru sah sr tg tt uk uz,
DEVANAGARI hi mr ne sa sd, ETHIOPIC am ti, GEORGIAN ka, GREEK el, GUJARATI gu,
GURMUKHI pa, HANGUL ko, HEBREW he yi, HIRAGANA ja, KANNADA kn, KATAKANA ja,
KATAKANA-HIRAGANA ja, KHMER km, LAO lo, LATIN sr uz, MALAYALAM ml, MYANMAR my,
ORIYA or, SINHALA si, TAMIL ta, TELUGU te, THAI th, THAANA dv, TIBETAN bo
"""
"""Scripts by the first word of their letters' Unicode names; others are in Latin."""

_ROWS = [row.split() for row in _OTHERS.replace("\n", " ").split(",")]
SCRIPTS = frozenset({"LATIN", *(script for script, *_ in _ROWS)})


@cache
def scripts_of(lang: str) -> frozenset[str]:
    """Scripts of a language.

    Example:
        >>> sorted(scripts_of("ja")), sorted(scripts_of("ca"))
        (['CJK', 'HIRAGANA', 'KATAKANA', 'KATAKANA-HIRAGANA'], ['LATIN'])
    """
    return frozenset(row[0] for row in _ROWS if lang in row[1:]) or frozenset(["LATIN"])


@cache
def script_of(character: str) -> str:
    """Script of a letter, "" of anything else."""
    if unicodedata.category(character)[0] != "L":
        return ""
    script = unicodedata.name(character, "").partition(" ")[0]
    return script if script in SCRIPTS else ""


def is_foreign(text: str, lang: str) -> bool:
    """Whether most letters of a text are of scripts that its language does not use.

    Example:
        >>> is_foreign("Добры дзень", "ca"), is_foreign("el disc de The Cure", "ca")
        (True, False)
    """
    found = [script for script in map(script_of, text) if script]
    own = sum(script in scripts_of(lang) for script in found)
    return 2 * own < len(found)
