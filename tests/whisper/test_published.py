"""Whisper's own normaliser, as it is published."""

import json

import pytest

from espnet_lora_experts.report.errors import count_errors
from espnet_lora_experts.whisper import languages, published

english_normalizer = pytest.importorskip(
    "transformers.models.whisper.english_normalizer"
)


@pytest.fixture(scope="module")
def normalize():
    return published.normalizer({"colour": "color"})


def test_english_has_its_own(normalize):
    assert normalize("I've twenty-two colours, colour!", "en") == (
        "i have 22 colours color"
    )
    assert normalize("I've twenty-two", "de") == "i ve twenty two"


def test_other_languages_are_basic(normalize):
    text = "L’été, (bruit) c'est  [rire] ça!"
    basic = english_normalizer.BasicTextNormalizer()(text).strip()
    assert normalize(text, "fr") == basic == "l été c est ça"


@pytest.mark.parametrize(
    "texts",
    [("你好，world。", "你号 world"), ("ที่นี่ ไทย!", "ที่นี่ไท"), ("今日は", "きょうは")],
)
def test_characters_are_counted_as_its_split_letters(normalize, texts):
    """Whisper's authors put a space between letters and count words."""
    split = english_normalizer.BasicTextNormalizer(split_letters=True)
    theirs = count_errors(*([split(text).strip()] for text in texts), "word")
    ours = count_errors(*([normalize(text, "zh")] for text in texts), "char")
    assert ours.tolist() == theirs.tolist()


def test_it_cuts_words_at_their_marks_and_ours_does_not(normalize):
    text = "हिन्दी"
    assert len(normalize(text, "hi").split()) > 1
    assert languages.normalize(text, "hi") == text


def test_spellings_come_from_the_backbones_folder(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("espnet_lora_experts.whisper.hub.resolve", lambda _: tmp_path)
    assert published.spellings("any") == {}
    assert "normalizer.json must list British spellings" in caplog.text
    (tmp_path / "normalizer.json").write_text(json.dumps({"colour": "color"}))
    assert published.spellings("any") == {"colour": "color"}
