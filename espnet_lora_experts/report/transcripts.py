"""A transcript as text: plain, JSON, or subtitles with the times of its segments.

Each format is a function of a result of ``Speech2Text`` and the path of its audio.
"""

from __future__ import annotations

import dataclasses
import json
from html import escape


def txt(result, path: str) -> str:
    """The plain text."""
    return f"{one_line(result.text)}\n"


def tsv(result, path: str) -> str:
    """Path, tab, plain text."""
    return f"{path}\t{one_line(result.text)}\n"


def jsonl(result, path: str) -> str:
    """All that is known of a transcript, in one line."""
    content = {"path": path, **dataclasses.asdict(result)}
    return json.dumps(content, ensure_ascii=False) + "\n"


def srt(result, path: str) -> str:
    """SubRip: numbered cues, a comma in their times."""
    cues = [
        f"{i}\n{_times(segment, ',')}\n{one_line(segment.text)}\n"
        for i, segment in enumerate(_spoken(result), start=1)
    ]
    return "\n".join(cues)


def vtt(result, path: str) -> str:
    """WebVTT, where ``&``, ``<`` and ``>`` of a text are escaped.

    Source: https://www.w3.org/TR/webvtt1/#webvtt-cue-text
    """
    cues = [
        f"{_times(segment, '.')}\n{escape(one_line(segment.text), quote=False)}\n"
        for segment in _spoken(result)
    ]
    return "\n".join(["WEBVTT\n", *cues])


def _spoken(result) -> list:
    return [segment for segment in result.segments if segment.text.strip()]


def _times(segment, mark: str) -> str:
    return f"{clock(segment.start, mark)} --> {clock(segment.end, mark)}"


def clock(seconds: float, mark: str) -> str:
    """A time in subtitles, rounded to milliseconds.

    Example:
        >>> clock(3661.9996, ",")
        '01:01:02,000'
    """
    minutes, milliseconds = divmod(round(seconds * 1000), 60_000)
    hours, minutes = divmod(minutes, 60)
    whole, milliseconds = divmod(milliseconds, 1000)
    return f"{hours:02}:{minutes:02}:{whole:02}{mark}{milliseconds:03}"


def one_line(text: str) -> str:
    r"""The text without line breaks, which would end a cue or a row.

    Example:
        >>> one_line(" uno\n\ndos ")
        'uno dos'
    """
    return " ".join(text.split())


FORMATS = {"txt": txt, "srt": srt, "vtt": vtt, "json": jsonl}
LINES = {"txt": tsv, "json": jsonl}
"""Formats of which a line can stand for each of several files."""
