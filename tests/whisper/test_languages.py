"""The table of languages."""

import doctest
import subprocess
import sys
from pathlib import Path

import pytest

from espnet_lora_experts.whisper import languages, scripts, spelling


def test_table_is_whispers_own():
    tokenization = pytest.importorskip(
        "transformers.models.whisper.tokenization_whisper"
    )
    names = {row.code: row.name for row in languages.WHISPER}
    assert list(names.items()) == list(tokenization.LANGUAGES.items())
    assert len(names) == 100


def test_every_parent_has_a_token():
    codes = {row.code for row in languages.WHISPER}
    for row in languages.TABLE.values():
        assert row.token == f"<|{row.code}|>"
        assert row.code in codes or row.parent in codes


def test_unspaced_scripts_are_scored_by_characters():
    by_characters = {c for c, row in languages.TABLE.items() if row.metric == "cer"}
    assert by_characters == {"zh", "ja", "yue", "th", "lo", "my", "km", "bo"}
    assert {row.metric for row in languages.TABLE.values()} == {"wer", "cer"}


@pytest.mark.parametrize(
    ("code", "near"),
    [("spanish", "es"), ("xx", "near: none"), ("pt_BR", "pt"), ("portugese", "pt")],
)
def test_unknown_code_names_near_matches_and_the_way_to_add(code, near):
    with pytest.raises(ValueError, match=f"got '{code}'.*add a row to") as error:
        languages.get(code)
    assert near in str(error.value).split("known:")[0]


def test_own_token_comes_before_the_parents():
    vocab = {"<|zh|>": 1, "<|yue|>": 2, "<|es|>": 3}
    assert languages.token_id("yue", vocab) == 2
    del vocab["<|yue|>"]
    assert languages.token_id("yue", vocab) == 1
    assert languages.token_id("ast", vocab) == 3


def test_language_without_any_token_is_an_error():
    with pytest.raises(ValueError, match=r"none of <\|yue\|> <\|zh\|>; known: es"):
        languages.token_id("yue", {"<|es|>": 3})


@pytest.mark.parametrize(
    ("code", "text", "expected"),
    [
        ("hi", "क्या हिन्दी ठीक है?", "क्या हिन्दी ठीक है"),
        ("th", "ที่นี่ ประเทศไทย!", "ที่นี่ประเทศไทย"),
        ("ja", "今日は、ＡＢＣ ガ。", "今日はabcガ"),
        ("fr", "L’été à 5 €…", "l'été à 5"),
        ("tr", "ISPARTA İL", "ısparta il"),
        ("el", "ΟΔΟΣ", "οδος"),
        ("ro", "co\u00adpil\tal\nlui", "copil al lui"),
        ("es", "l´agua", "l'agua"),
        ("es", "un ´ 1´", "un 1"),
        ("km", "ប្រាក់\u200bសហរដ្ឋ", "ប្រាក់សហរដ្ឋ"),
        ("en", " ?! ", ""),
        ("en", "", ""),
    ],
)
def test_normalize(code, text, expected):
    assert languages.normalize(text, code) == expected
    assert languages.normalize(expected, code) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"code": "xx"}, "language must be a code"),
        ({"case": "upper"}, "case must be a policy, but got 'upper'; known: lower"),
        (
            {"punctuation": ""},
            "punctuation must be a policy, but got ''; known: remove",
        ),
    ],
)
def test_unknown_language_or_policy_is_an_error(options, message):
    with pytest.raises(ValueError, match=message):
        languages.normalize(**{"text": "text", "code": "es", **options})


def test_every_language_has_scripts_and_no_other_has():
    assert set(scripts.SCRIPTS) | set(spelling.SPELLING) <= set(languages.TABLE)
    assert all(row.scripts for row in languages.TABLE.values())
    assert languages.get("ja").scripts == ("Han", "Hiragana", "Katakana")
    assert languages.get("es").scripts == ("Latin",)


# "All human beings are born free" and the like.
SAMPLES = {
    "Arabic": "يولد جميع الناس", "Armenian": "Բոլոր մարդիկ", "Bengali": "সমস্ত মানুষ",
    "Cyrillic": "Все люди", "Devanagari": "सभी मनुष्यों", "Ethiopic": "የሰው ልጅ",
    "Georgian": "ყველა ადამიანი", "Greek": "Όλοι οι άνθρωποι", "Gujarati": "માણસ",
    "Gurmukhi": "ਸਾਰਾ ਮਨੁੱਖੀ", "Han": "人人生而自由", "Hangul": "모든 인간은",
    "Hebrew": "כל בני האדם", "Hiragana": "すべてのひとは", "Kannada": "ಮಾನವರು",
    "Katakana": "ヒューマン", "Khmer": "មនុស្សទាំងអស់", "Lao": "ມະນຸດທຸກຄົນ",
    "Latin": "All human beings", "Malayalam": "മനുഷ്യർ", "Myanmar": "လူတိုင်းသည်",
    "Sinhala": "සියලු මනුෂ්‍යයෝ", "Tamil": "மனிதர்", "Telugu": "మానవులు",
    "Thai": "มนุษย์ทั้งหลาย", "Tibetan": "འགྲོ་བ་མིའི་རིགས",
}  # fmt: skip


def test_a_text_is_in_another_script_where_its_script_is_not_the_languages():
    used = {script for row in languages.TABLE.values() for script in row.scripts}
    assert used == set(SAMPLES)
    for code, row in languages.TABLE.items():
        for script, text in SAMPLES.items():
            found = languages.in_other_script(text, code)
            assert found == (script not in row.scripts), (code, script)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("es", "12 345 !"), ("es", ""), ("ja", "ー"), ("zh", "我要 upload 一个 file"),
        ("sr", "Zdravo"), ("sr", "Здраво"), ("ru", "Я люблю YouTube"), ("th", "ๆ OK"),
        ("th", "ใช้ Facebook Google Twitter"),
    ],
)  # fmt: skip
def test_loans_and_texts_without_letters_are_in_no_other_script(code, text):
    assert not languages.in_other_script(text, code)


def test_module_imports_without_torch_and_transformers():
    root = Path(languages.__file__).parents[2]
    program = (
        "import sys, espnet_lora_experts.whisper.languages;"
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=root, check=False)
    assert run.returncode == 0


@pytest.mark.parametrize("module", [languages, scripts, spelling])
def test_examples(module):
    assert doctest.testmod(module).failed == 0
