"""What is one spelling of a language in several codes, as data.

Texts that look the same, or that writers of the language use for the same, are written
in one way before they are compared. Nothing that is heard differently is folded, and
nothing between scripts: simplified and traditional Chinese, Serbian in Latin and
Cyrillic letters, digits and number words, Arabic alef with and without hamza stay
different.

The rules are regular expressions of the ``regex`` module with replacements. They see
decomposed text (NFKD): a letter and its marks are characters of their own. Each must
give the same when it is applied twice.
"""

from functools import lru_cache

import regex

Rules = tuple[tuple[str, str], ...]

# Everywhere, before and after text is decomposed; the characters belong to one script.
BEFORE: Rules = (
    ("\u0d23\u0d4d\u200d", "\u0d7a"),  # Malayalam chillus of old: letter, virama, ZWJ
    ("\u0d28\u0d4d\u200d", "\u0d7b"),
    ("\u0d30\u0d4d\u200d", "\u0d7c"),
    ("\u0d32\u0d4d\u200d", "\u0d7d"),
    ("\u0d33\u0d4d\u200d", "\u0d7e"),
    ("\u0d15\u0d4d\u200d", "\u0d7f"),
    ("\u09a4\u09cd\u200d", "\u09ce"),  # Bengali khanda ta
    ("\u200b", " "),  # zero-width space, between words of Khmer, Thai, Burmese
    ("ŉ", "'n"),
    ("[`´ʹ\u0374ʻʼʽ‘’‛′＇՚׳]", "'"),  # one apostrophe
    ("[“”„‟″＂״]", '"'),
    (r"\p{Sk}", " "),  # decomposed, some would be marks of the letter before them
)
# Invisible characters go, joiners of Indic scripts and of Persian among them, so do
# Arabic's tatweel, which only widens a word, and Armenian's stress marks inside words.
AFTER: Rules = ((r"[\p{DI}\p{Cf}\u0640\u055b\u055c\u055e\u055f]", ""),)
# Burmese words that Unicode counts as punctuation: locative, completed, genitive ...
LETTERS = "\u104c\u104d\u104e\u104f"

# Marks that are no punctuation between letters; elsewhere "'" alone.
INNER = {"ca": "'·", "oc": "'·", "he": "'\"", "yi": "'\""}  # col·legi, צה"ל
# The apostrophe is a letter there, at the edge of a word too: ʻōlelo, bogʻ, ta', 'yar.
LETTER_APOSTROPHE = frozenset({"ha", "haw", "mt", "uz"})
DOTTED_I = frozenset({"az", "tr"})  # I is the capital of ı, İ of i

_HARAKAT = (r"[\u064b-\u0652\u0670]", "")  # short vowels, seldom written
_STRESS = (r"(?<=\p{Cyrillic}\p{M}*)\u0301", "")  # as in dictionaries
_YEH = (r"[\u064a\u0649](?!\u0654)", "\u06cc")  # Arabic's letters for Persian's
_KAF = ("\u0643", "\u06a9")
_TONES = r"([\u0300\u0301\u0303\u0309\u0323])"

SPELLING: dict[str, Rules] = {
    "ar": (_HARAKAT,),
    "be": (_STRESS,),
    "bg": (_STRESS,),
    "ckb": (_YEH, _KAF),
    "cv": (  # Latin letters that stand in for ӑ, ӗ, ҫ, ӳ
        ("a(?=\u0306)", "а"), ("e(?=\u0306)", "е"),
        ("c\u0327", "ҫ"), ("y(?=\u0308)", "у"),
    ),
    "el": (("ς", "σ"), (r"(?<=[\p{L}\p{M}])σ(?![\p{L}\p{M}'])", "ς")),
    "fa": (_HARAKAT, _YEH, _KAF),
    "he": (("[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7]", ""),),  # niqqud
    "lo": (("\u0ecd([\u0ec8-\u0ecb]*)\u0eb2", r"\1\u0eb3"),),
    "ps": (_HARAKAT, _KAF),
    "ro": (("(?<=[sStT])\u0327", "\u0326"),),  # cedilla for comma
    "ru": (_STRESS, ("(?<=[еЕ])\u0308+", "")),  # ё may always be written е
    "sd": (_HARAKAT,),
    "th": (  # sara am in two characters, sara ae as two sara e
        ("\u0e4d([\u0e48-\u0e4b]*)\u0e32", r"\1\u0e33"), ("\u0e40\u0e40", "\u0e41"),
    ),
    "uk": (_STRESS,),
    "ur": (_HARAKAT, _YEH, _KAF, ("\u0647", "\u06c1")),
    "vi": ((f"o{_TONES}([ae])", r"o\2\1"), (f"u{_TONES}y", r"uy\1"), ("ð", "đ")),
}  # fmt: skip


def lower(text: str, code: str) -> str:
    """Lower case as the language has it: ß stays, Turkish I is the capital of ı.

    Example:
        >>> lower("ISPARTA İL", "tr"), lower("STRAẞE", "de")
        ('ısparta il', 'straße')
    """
    if code in DOTTED_I:
        text = regex.sub("İ|I\u0307", "i", text).replace("I", "ı")
    return text.lower()


def replace(text: str, rules: Rules) -> str:
    """The text after each rule, one after the other."""
    for pattern, replacement in _compiled(rules):
        text = pattern.sub(replacement, text)
    return text


@lru_cache
def _compiled(rules: Rules) -> list[tuple[regex.Pattern, str]]:
    return [(regex.compile(pattern), replacement) for pattern, replacement in rules]


@lru_cache
def punctuation(code: str) -> regex.Pattern:
    """What separates words or stands beside them, in decomposed text."""
    inner = INNER.get(code, "'")
    other = rf"[[\p{{P}}\p{{S}}\p{{Z}}\p{{Cc}}]--[{inner}{LETTERS}]]"
    if code in LETTER_APOSTROPHE:
        outside = rf"(?<!\p{{L}}\p{{M}}*)[{inner}](?!\p{{L}})"
    else:
        inside = rf"(?<=[\p{{L}}\p{{N}}]\p{{M}}*)[{inner}](?=\p{{L}})"
        outside = rf"(?!{inside})[{inner}]"
    return regex.compile(rf"(?V1){other}|{outside}")
