"""The table of languages: code, token, parent, error metric, scripts, spelling.

The first hundred rows are the languages of Whisper large-v3 in the order of their
tokens (smaller vocabularies end before ``yue``). The rows after them are languages
that Whisper has no token for: their ``parent`` lends its own. To add a language, add
a row.
"""

import difflib
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field

from espnet_lora_experts.whisper import scripts, spelling

_TOKENS = """
en english, zh chinese, de german, es spanish, ru russian, ko korean, fr french,
ja japanese, pt portuguese, tr turkish, pl polish, ca catalan, nl dutch, ar arabic,
sv swedish, it italian, id indonesian, hi hindi, fi finnish, vi vietnamese, he hebrew,
uk ukrainian, el greek, ms malay, cs czech, ro romanian, da danish, hu hungarian,
ta tamil, no norwegian, th thai, ur urdu, hr croatian, bg bulgarian, lt lithuanian,
la latin, mi maori, ml malayalam, cy welsh, sk slovak, te telugu, fa persian,
lv latvian, bn bengali, sr serbian, az azerbaijani, sl slovenian, kn kannada,
et estonian, mk macedonian, br breton, eu basque, is icelandic, hy armenian, ne nepali,
mn mongolian, bs bosnian, kk kazakh, sq albanian, sw swahili, gl galician, mr marathi,
pa punjabi, si sinhala, km khmer, sn shona, yo yoruba, so somali, af afrikaans,
oc occitan, ka georgian, be belarusian, tg tajik, sd sindhi, gu gujarati, am amharic,
yi yiddish, lo lao, uz uzbek, fo faroese, ht haitian creole, ps pashto, tk turkmen,
nn nynorsk, mt maltese, sa sanskrit, lb luxembourgish, my myanmar, bo tibetan,
tl tagalog, mg malagasy, as assamese, tt tatar, haw hawaiian, ln lingala, ha hausa,
ba bashkir, jw javanese, su sundanese, yue cantonese
"""

# Code, name and the close relative whose token stands in.
_BORROWERS = """
an aragonese es, ast asturian es, ckb sorani fa, cv chuvash tt, eo esperanto it,
fy frisian nl, ga irish cy, hsb sorbian cs, ky kyrgyz kk, rm romansh it,
rw kinyarwanda sw, zu zulu sn
"""

_PARENTS = {"yue": "zh"}  # in Whisper, but not before large-v3
_UNSPACED = frozenset({"zh", "ja", "yue", "th", "lo", "my", "km", "bo"})
MODES = {"aware": "language given", "agnostic": "language found"}
"""Where a system has an utterance's language from."""
CASES = ("lower", "keep")
PUNCTUATIONS = ("remove", "keep")


@dataclass(frozen=True)
class Language:
    """One row of the table.

    Attributes:
        code: Whisper's code, ``"es"``.
        name: English name in lower case, ``"spanish"``.
        parent: Code of the language whose token is used where the vocabulary lacks
            this one's; "" when there is none.
        metric: ``"wer"``, or ``"cer"`` where words are not separated by spaces.
        scripts: Unicode's names of those that it is written in.
        rules: What :func:`normalize` folds, see :mod:`.spelling`.
    """

    code: str
    name: str
    parent: str = ""
    metric: str = "wer"
    scripts: tuple[str, ...] = scripts.LATIN
    rules: spelling.Rules = field(default=(), repr=False)

    @property
    def token(self) -> str:
        """Whisper's token, ``"<|es|>"``."""
        return f"<|{self.code}|>"


def _rows(text: str) -> list[list[str]]:
    return [row.split() for row in text.replace("\n", " ").split(",")]


def _language(code: str, name: str, parent: str = "") -> Language:
    metric = "cer" if code in _UNSPACED else "wer"
    return Language(
        code,
        name,
        parent or _PARENTS.get(code, ""),
        metric,
        scripts.SCRIPTS.get(code, scripts.LATIN),
        spelling.SPELLING.get(code, ()),
    )


WHISPER = tuple(_language(code, " ".join(name)) for code, *name in _rows(_TOKENS))
TABLE: Mapping[str, Language] = {
    language.code: language
    for language in (*WHISPER, *(_language(*row) for row in _rows(_BORROWERS)))
}


def get(code: str) -> Language:
    """Look a language up.

    Args:
        code: Whisper's code of the language.

    Raises:
        ValueError: When the table lacks it; names near matches and how to add one.

    Example:
        >>> get("yue").parent, get("yue").metric, get("yue").scripts
        ('zh', 'cer', ('Han',))
        >>> get("yue").token
        '<|yue|>'
    """
    if code not in TABLE:
        raise ValueError(
            f"language must be a code of the table, but got {code!r};"
            f" near: {', '.join(_near(code)) or 'none'}; known: {' '.join(TABLE)}."
            " To add one, add a row to espnet_lora_experts/whisper/languages.py, with a"
            " parent whose Whisper token it shares"
        )
    return TABLE[code]


def title(code: str) -> str:
    """A language's name and code.

    Example:
        >>> title("es")
        'Spanish (es)'
    """
    return f"{get(code).name.title()} ({code})"


def _near(code: str) -> list[str]:
    """Codes whose code or name resembles ``code``, best first."""
    word = str(code).lower()
    names = {language.name: language.code for language in TABLE.values()}
    prefix = word.replace("_", "-").split("-")[0]
    close = [names[name] for name in difflib.get_close_matches(word, names)]
    close += difflib.get_close_matches(prefix, TABLE, cutoff=0.65)
    return list(dict.fromkeys(close))


def token_id(code: str, vocab: Mapping[str, int]) -> int:
    """Id of a language's token, or of its parent's where the vocabulary lacks it.

    Args:
        code: Code of the language.
        vocab: Token to id, as of Whisper's tokenizer.

    Raises:
        ValueError: When neither the language nor a parent has a token.

    Example:
        >>> token_id("yue", {"<|zh|>": 50260})
        50260
    """
    tried, language = [], get(code)
    while language.token not in vocab:
        tried.append(language.token)
        if not language.parent:
            known = [row.code for row in TABLE.values() if row.token in vocab]
            raise ValueError(
                f"vocabulary must have a token of language {code!r}, but got none of"
                f" {' '.join(tried)}; known: {' '.join(known) or 'none'}"
            )
        language = get(language.parent)
    return vocab[language.token]


def in_other_script(text: str, code: str) -> bool:
    """Whether a text is mostly in another script than the language's.

    Example:
        >>> in_other_script("Привет, Мир", "es"), in_other_script("Hola, Мир", "es")
        (True, False)
    """
    language = get(code)
    return scripts.mostly_other(text, language.scripts, language.metric == "cer")


def normalize(
    text: str, code: str, case: str = "lower", punctuation: str = "remove"
) -> str:
    """Text as it is scored: one spelling, lower case, no punctuation or symbols.

    Compatibility characters are folded (NFKC: full-width forms, ligatures,
    presentation forms), then what the language's rules fold (:mod:`.spelling`).
    Combining marks stay, since they are letters of Hindi, Thai and many others; digits
    stay as they are; an apostrophe between letters stays, a hyphen separates words.
    There are no spaces where the language is scored by CER. Doing it twice changes
    nothing.

    Args:
        text: A reference or a hypothesis.
        code: Code of its language.
        case: ``"lower"`` or ``"keep"``.
        punctuation: ``"remove"`` (with symbols) or ``"keep"``.

    Raises:
        ValueError: When the language or a policy is unknown.

    Example:
        >>> normalize("¿Qué  hora es?", "es")
        'qué hora es'
        >>> normalize("नमस्ते, दुनिया!", "hi")
        'नमस्ते दुनिया'
        >>> normalize("L’été, c’est ça.", "fr", case="keep")
        "L'été c'est ça"
        >>> normalize("你好，世界。", "zh")
        '你好世界'
    """
    language = get(code)
    _check("case", case, CASES)
    _check("punctuation", punctuation, PUNCTUATIONS)
    text = unicodedata.normalize("NFKD", spelling.replace(text, spelling.BEFORE))
    text = unicodedata.normalize("NFKD", spelling.replace(text, spelling.AFTER))
    if punctuation == "remove":
        text = spelling.punctuation(code).sub(" ", text)
    space = "" if language.metric == "cer" else " "
    text = space.join(text.split())
    text = spelling.lower(text, code) if case == "lower" else text
    text = spelling.replace(text, language.rules)
    return unicodedata.normalize("NFC", space.join(text.split()))


def _check(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(
            f"{what} must be a policy, but got {value!r}; known: {' '.join(known)}"
        )
