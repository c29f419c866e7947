"""The table of languages."""

import doctest
import subprocess
import sys
from pathlib import Path

import pytest

from espnet_lora_experts.whisper import languages


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
        ("fr", "L’été à 5 €…", "l été à 5"),
        ("tr", "ISPARTA İL", "ısparta il"),
        ("el", "ΟΔΟΣ", "οδος"),
        ("ro", "co\u00adpil\tal\nlui", "copil al lui"),
        ("es", "l´agua", "l agua"),
        ("km", "ប្រាក់\u200bសហរដ្ឋ", "ប្រាក់សហរដ្ឋ"),
        ("en", " ?! ", ""),
        ("en", "", ""),
    ],
)
def test_normalize(code, text, expected):
    assert languages.normalize(text, code) == expected
    assert languages.normalize(expected, code) == expected


def test_marks_survive_in_every_script():
    for code, text in {"hi": "किताब", "th": "น้ำ", "bn": "বাংলা", "my": "မြန်မာ"}.items():
        kept = languages.normalize(text, code)
        assert len(kept) >= len(text)


def test_unknown_language_is_not_normalized():
    with pytest.raises(ValueError, match="language must be a code"):
        languages.normalize("text", "xx")


def test_module_imports_without_torch_and_transformers():
    root = Path(languages.__file__).parents[2]
    program = (
        "import sys, espnet_lora_experts.whisper.languages;"
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=root, check=False)
    assert run.returncode == 0


def test_examples():
    assert doctest.testmod(languages).failed == 0
