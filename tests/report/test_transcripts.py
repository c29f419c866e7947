"""Each format says what was said, and when, in one piece."""

import json
from dataclasses import dataclass, field

import pytest

from espnet_lora_experts.report.transcripts import FORMATS, LINES, clock


@dataclass
class Segment:
    start: float
    end: float
    text: str


@dataclass
class Result:
    text: str
    segments: list = field(default_factory=list)


RESULT = Result(
    "Dos\n\nlíneas. a < b & b --> c",
    [
        Segment(0.0, 1.5, "Dos\n\nlíneas."),
        Segment(61.0, 62.0, "  "),
        Segment(59.9996, 3725.25, "a < b & b --> c"),
    ],
)


def test_text_is_one_line_and_a_list_names_the_file():
    assert FORMATS["txt"](RESULT, "a b.wav") == "Dos líneas. a < b & b --> c\n"
    assert LINES["txt"](RESULT, "a b.wav") == "a b.wav\tDos líneas. a < b & b --> c\n"


def test_json_is_a_line_with_all_that_is_known():
    line = LINES["json"](RESULT, "a.wav")
    assert line.count("\n") == 1 and "líneas" in line
    said = json.loads(line)
    assert said["path"] == "a.wav" and said["text"] == RESULT.text
    last = {"start": 59.9996, "end": 3725.25, "text": "a < b & b --> c"}
    assert len(said["segments"]) == 3 and said["segments"][2] == last


def test_subrip_numbers_what_was_spoken():
    assert FORMATS["srt"](RESULT, "a.wav") == (
        "1\n00:00:00,000 --> 00:00:01,500\nDos líneas.\n"
        "\n"
        "2\n00:01:00,000 --> 01:02:05,250\na < b & b --> c\n"
    )


def test_webvtt_escapes_what_would_be_a_tag_or_a_time():
    assert FORMATS["vtt"](RESULT, "a.wav") == (
        "WEBVTT\n"
        "\n"
        "00:00:00.000 --> 00:00:01.500\nDos líneas.\n"
        "\n"
        "00:01:00.000 --> 01:02:05.250\na &lt; b &amp; b --&gt; c\n"
    )


def test_silence_has_no_cue():
    assert FORMATS["srt"](Result(""), "a.wav") == ""
    assert FORMATS["vtt"](Result(""), "a.wav") == "WEBVTT\n"


@pytest.mark.parametrize("seconds", [0, 0.0004, 0.9996, 59.9999, 3599.9999, 86_400.5])
def test_times_are_milliseconds(seconds):
    hours, minutes, rest = clock(seconds, ".").split(":")
    assert int(minutes) < 60 and float(rest) < 60
    found = 3600 * int(hours) + 60 * int(minutes) + float(rest)
    assert found == pytest.approx(seconds, abs=0.00051)
