"""Worst utterances, their alignment, their clips."""

import base64
import io

import numpy as np
import pytest
import soundfile

from espnet_lora_experts.report import errors
from espnet_lora_experts.report.page.worst import MOST_PIECES, align, as_ogg, worst
from espnet_lora_experts.report.results import Decoded

REFERENCES = ["uno dos tres", "cuatro", "cinco seis", "你好世界"]
HYPOTHESES = [
    "uno dos tres",
    "x y z",
    "cinco",
    "你世界啊",
]  # a character left out, one more
LANGS = ["es", "es", "es", "zh"]
UTTS = ["a", "b", "c", "d"]


def decoded(found=None):
    return Decoded(LANGS, REFERENCES, HYPOTHESES, found)


def test_the_worst_come_first_and_right_ones_not_at_all():
    found = worst(UTTS, decoded(), 10)
    assert [(one.utt, one.rate, one.errors) for one in found] == [
        ("b", 300.0, 3),
        ("d", 50.0, 2),
        ("c", 50.0, 1),
    ]
    assert [one.utt for one in worst(UTTS, decoded(), 1)] == ["b"]


def test_what_was_heard_as_is_told_only_of_systems_that_find_it():
    assert worst(UTTS, decoded(), 1)[0].found is None
    assert worst(UTTS, decoded(["es", "fr", "es", "zh"]), 1)[0].found == "fr"


@pytest.mark.parametrize("unit", ["word", "char"])
@pytest.mark.parametrize(
    ("reference", "hypothesis"),
    [("a b c", "a x c d"), ("", "a b"), ("a b", ""), ("a a b", "b a a c"), ("", "")],
)
def test_pieces_hold_both_texts_and_as_many_errors_as_are_counted(
    reference, hypothesis, unit
):
    pieces = align(reference, hypothesis, unit)
    space = {"word": " ", "char": ""}[unit]
    for text, side in ((reference, "reference"), (hypothesis, "hypothesis")):
        parts = [getattr(piece, side) for piece in pieces]
        assert space.join(part for part in parts if part) == text
    kinds = [piece.kind for piece in pieces]
    counts = errors.count_errors([reference], [hypothesis], unit)[0]
    found = [kinds.count(kind) for kind in ("substitute", "delete", "insert")]
    assert found == counts[: errors.REF].tolist()


def test_languages_without_spaces_are_aligned_by_character():
    one = next(x for x in worst(UTTS, decoded(), 10) if x.utt == "d")
    assert one.unit == "characters"
    assert [(p.kind, p.reference) for p in one.pieces][1] == ("delete", "好")


def test_a_transcript_that_loops_is_cut():
    looped = Decoded(["es"], ["uno"], ["uno " + "dos " * 200])
    (one,) = worst(["a"], looped, 1)
    assert len(one.pieces) == MOST_PIECES
    assert one.errors == 200
    assert len(one.pieces) + one.more == 201


def test_a_clip_survives_as_ogg():
    time = np.arange(16_000) / 16_000
    samples = 0.5 * np.sin(2 * np.pi * 440 * time).astype(np.float32)
    address = as_ogg(samples, 16_000)
    head, _, data = address.partition(",")
    assert head == "data:audio/ogg;base64"
    assert len(address) < len(samples)  # a fourth of its 16-bit samples in base64
    found, rate = soundfile.read(io.BytesIO(base64.b64decode(data)))
    assert abs(len(found) / rate - 1) < 0.05
    spectrum = np.abs(np.fft.rfft(found))
    assert abs(spectrum.argmax() * rate / len(found) - 440) < 3
