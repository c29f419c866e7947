"""A recording's result says what its segments say together."""

import pytest

from espnet_lora_experts.inference.result import Segment, join


def said(text, lang, start, end, **posteriors):
    tokens = text.split()
    return Segment(text, lang, posteriors, -1.5, tokens, start=start, end=end)


@pytest.fixture
def segments():
    """Two of Russian, together longer than the longest one."""
    return [
        said("один", "ru", 0.0, 2.0, es=0.2, ru=0.8),
        said("uno dos", "es", 2.5, 5.5, es=0.7, ru=0.3),
        said("", "ru", 6.0, 8.0, es=0.4, ru=0.6),
    ]


def test_text_tokens_and_score_are_those_of_all(segments):
    result = join(segments, None)
    assert result.text == "один uno dos"
    assert result.tokens == ["один", "uno", "dos"]
    assert result.score == -4.5
    assert result.segments == tuple(segments)


def test_language_is_the_one_with_most_seconds(segments):
    assert join(segments, None).lang == "ru"
    assert join(segments[:2], None).lang == "es"
    assert join(segments, "be").lang == "be"


def test_posteriors_are_the_mean_over_time(segments):
    posteriors = join(segments, None).posteriors
    assert posteriors == pytest.approx({"es": 3.3 / 7, "ru": 3.7 / 7})
    assert join(segments[:1], None).posteriors == {"es": 0.2, "ru": 0.8}


def test_ended_when_all_have(segments):
    cut = Segment("a", "es", {}, -1.0, ["a"], ended=False, start=8.0, end=9.0)
    assert join(segments, None).ended and not join([*segments, cut], None).ended
