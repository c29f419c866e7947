"""The normaliser: identities over any text, and what each language's rules fold."""

import unicodedata
from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from espnet_lora_experts.whisper import languages
from espnet_lora_experts.whisper.languages import normalize

# What the rules look at, so that random texts hold it.
TOLD = (
    "'’‘`´ʼʻ\"״\u200b\u200c\u200d\u00ad\u034f\ufe0f\u3164\u0640·-\u0301\u0308"
    "\u0327\u0306\u0300\u0323ŀŉiIİıςσΣ ﹱﹰͺ\u0e4d\u0e32\u0e33\u0e48\u0e40\u0ecd"
    "\u0eb2\u064a\u0654\u0649\u064eеЕёoaeuyðäßﬁ½㎏か\u3099\u104c\u05b0שن"
)
TEXTS = st.text(st.one_of(st.sampled_from(TOLD), st.characters()), max_size=12)
CODES = st.sampled_from(sorted(languages.TABLE))
CASES = st.sampled_from(languages.CASES)
PUNCTUATIONS = st.sampled_from(languages.PUNCTUATIONS)
quickly = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)


def letters(text):
    folded = unicodedata.normalize("NFKC", text)
    return sum(unicodedata.category(character)[0] == "L" for character in folded)


def marks(text):
    decomposed = unicodedata.normalize("NFKD", text)
    return Counter(c for c in decomposed if unicodedata.category(c)[0] == "M")


@quickly
@given(TEXTS, CODES, CASES, PUNCTUATIONS)
@example("aŉb", "es", "lower", "remove")  # decomposed, it has another apostrophe
@example("s\u0323\u034f\u0327", "ro", "lower", "remove")  # marks that change places
def test_twice_is_once(text, code, case, punctuation):
    once = normalize(text, code, case, punctuation)
    assert normalize(once, code, case, punctuation) == once


@quickly
@given(TEXTS, CODES, CASES, PUNCTUATIONS)
def test_a_text_that_keeps_more_is_a_step_on_the_way(text, code, case, punctuation):
    kept = normalize(text, code, case, punctuation)
    assert normalize(kept, code) == normalize(text, code)


@quickly
@given(TEXTS, CODES)
def test_letters_never_grow_in_number(text, code):
    assert letters(normalize(text, code)) <= letters(text)


@quickly
@given(TEXTS, CODES)
def test_composed_and_decomposed_are_one_text(text, code):
    forms = {unicodedata.normalize(form, text) for form in ("NFC", "NFD")}
    assert len({normalize(form, code) for form in forms}) == 1


@quickly
@given(TEXTS, CODES)
def test_what_is_left_is_words(text, code):
    kept = normalize(text, code)
    spaces = " " if languages.get(code).metric == "wer" else ""
    assert kept == kept.strip() and "  " not in kept
    for character in kept.translate(
        {ord(x): None for x in "'\"·\u104c\u104d\u104e\u104f"}
    ):
        assert unicodedata.category(character)[0] not in "PSZ" or character in spaces
        assert unicodedata.category(character) not in ("Cf", "Cc")


# The letters and marks of each block that has vowel signs.
BLOCKS = {
    "hi": 0x900, "bn": 0x980, "pa": 0xA00, "gu": 0xA80, "ta": 0xB80, "te": 0xC00,
    "kn": 0xC80, "ml": 0xD00, "si": 0xD80, "th": 0xE00, "lo": 0xE80, "bo": 0xF00,
    "my": 0x1000, "km": 0x1780,
}  # fmt: skip


def alphabet(code):
    block = map(chr, range(BLOCKS[code], BLOCKS[code] + 128))
    hidden = "\u17b4\u17b5"  # Khmer's inherent vowels, never shown
    return [c for c in block if unicodedata.category(c)[0] in "LM" and c not in hidden]


@pytest.mark.parametrize("code", BLOCKS)
def test_every_mark_survives(code):
    @settings(quickly, max_examples=20)
    @given(st.text(st.sampled_from(alphabet(code)), max_size=20))
    def check(text):
        assert marks(normalize(text, code)) == marks(text)

    check()


@pytest.mark.parametrize(
    ("code", "texts", "expected"),
    [
        ("fr", ["aujourd’hui", "aujourd´hui", "AUJOURD'HUI"], "aujourd'hui"),
        ("ca", ["l’aigua", "L'AIGUA"], "l'aigua"),
        ("ca", ["col·legi", "coŀlegi"], "col·legi"),
        ("es", ["col·legi", "col¨legi"], "col legi"),
        ("it", ["«dell’arte»", "'dell'arte'"], "dell'arte"),
        ("uk", ["п’ять", "пʼять", "п'ять"], "п'ять"),
        ("en", ["'don’t'", "don't"], "don't"),
        ("uz", ["bog‘", "bogʻ", "bog'"], "bog'"),
        ("haw", ["ʻŌlelo", "‘ōlelo"], "'ōlelo"),
        ("tr", ["İI", "I\u0307I"], "iı"),
        ("az", ["BAKI, İL"], "bakı il"),
        ("de", ["Straße", "STRAẞE"], "straße"),
        ("pt", ["deu-me", "deu\u2011me", "deu – me"], "deu me"),
        ("ar", ["كتـــاب", "كِتَابٌ", "كتاب"], "كتاب"),
        ("ar", ["أحمد"], "أحمد"),
        ("fa", ["می\u200cروم", "ميروم"], "میروم"),
        ("ur", ["هے", "ہے"], "ہے"),
        ("ps", ["سړي"], "سړي"),
        ("he", ["שָׁלוֹם", "שׁלום", "שלום"], "שלום"),
        ("he", ["צה״ל", 'צה"ל'], 'צה"ל'),
        ("yi", ["אַ"], "אַ"),
        ("ru", ["Ёлка, за\u0301мок", "елка замок"], "елка замок"),
        ("be", ["ёлка"], "ёлка"),
        ("ru", ["йод"], "йод"),
        ("el", ["ΟΔΟΣ ΣΟΦΟΣ", "οδος σοφος", "οδοσ ςοφοσ"], "οδος σοφος"),
        ("hy", ["Ինչպե՞ս", "ինչպես"], "ինչպես"),
        ("ro", ["şi ţară", "ȘI ȚARĂ"], "și țară"),
        ("vi", ["hòa thủy", "hoà thuỷ"], "hoà thuỷ"),
        ("vi", ["hoàn tất"], "hoàn tất"),
        ("cv", ["ăçĕ", "ӑҫӗ"], "ӑҫӗ"),
        ("ml", ["അവന്\u200d", "അവൻ"], "അവൻ"),
        ("bn", ["উত্\u200d", "উৎ"], "উৎ"),
        ("si", ["ශ්\u200dරී", "ශ්රී"], "ශ්රී"),
        ("hi", ["क़", "क़"], "क़"),
        ("th", ["น้ำ", "นํ้า", "น ํ้า"], "น้ำ"),
        ("th", ["เเมว ๆ", "แมวๆ"], "แมวๆ"),
        ("lo", ["ນ້ຳ", "ນໍ້າ"], "ນ້ຳ"),
        ("my", ["လူ၏။"], "လူ၏"),
        ("bo", ["བོད་སྐད།"], "བོདསྐད"),
        ("ja", ["ｺｰﾋｰ", "コーヒー 。", "コ ー ヒ ー"], "コーヒー"),
        ("zh", ["Ａ Ｂ１２", "ab12。"], "ab12"),
        ("ko", ["안녕\u3164 하세요", "안녕 하세요"], "안녕 하세요"),
        ("hi", ["१२ 12"], "१२ 12"),
        ("fi", ["❤\ufe0f kyllä"], "kyllä"),
    ],
)
def test_spellings_of_a_word_are_one(code, texts, expected):
    assert {normalize(text, code) for text in texts} == {
        unicodedata.normalize("NFC", expected)
    }
