"""What was said: in a whole recording, and in each of its segments."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Transcript:
    """What was said.

    Attributes:
        text: The transcript.
        lang: Code of its language, given or found.
        posteriors: Probability of each of the system's languages; empty when given.
        score: Log probability of the transcript in nats.
        tokens: Its tokens.
        ended: Whether it ended by itself, before the limit on its tokens.
    """

    text: str
    lang: str
    posteriors: dict[str, float]
    score: float
    tokens: list[str]
    ended: bool = True


@dataclass(frozen=True, kw_only=True)
class Segment(Transcript):
    """What was said from one time to another.

    Attributes:
        start: Seconds from the recording's begin.
        end: The same of the segment's end.
    """

    start: float
    end: float

    @property
    def duration(self) -> float:
        """Seconds that it lasts."""
        return self.end - self.start


@dataclass(frozen=True)
class Result(Transcript):
    """What was said in one recording.

    Of several segments ``lang`` is the language with most seconds, ``posteriors`` are
    the segments' mean, weighted by their seconds, and ``score`` is the sum. Where
    nobody speaks there is no segment, ``text`` is empty, and ``lang`` too, unless it
    was given.

    Attributes:
        segments: In the order of time. A clip of up to 30 s is one segment.
    """

    segments: tuple[Segment, ...] = ()


def join(segments: Sequence[Segment], lang: str | None) -> Result:
    """The result of a recording.

    Args:
        segments: What was said in it, in the order of time.
        lang: Its language if it was given.

    Example:
        >>> parts = [Segment("uno", "es", {}, -1.0, ["uno"], start=0.0, end=2.0),
        ...          Segment("da", "ru", {}, -0.5, ["da"], start=2.5, end=3.0)]
        >>> result = join(parts, None)
        >>> result.text, result.lang, result.score
        ('uno da', 'es', -1.5)
    """
    return Result(
        text=" ".join(segment.text for segment in segments if segment.text),
        lang=lang or _most_spoken(segments),
        posteriors=_mean_posteriors(segments),
        score=sum(segment.score for segment in segments),
        tokens=[token for segment in segments for token in segment.tokens],
        ended=all(segment.ended for segment in segments),
        segments=tuple(segments),
    )


def _most_spoken(segments: Sequence[Segment]) -> str:
    seconds: dict[str, float] = defaultdict(float)
    for segment in segments:
        seconds[segment.lang] += segment.duration
    return max(seconds, key=seconds.__getitem__, default="")


def _mean_posteriors(segments: Sequence[Segment]) -> dict[str, float]:
    if len(segments) == 1:
        return segments[0].posteriors
    total = sum(segment.duration for segment in segments)
    mean: dict[str, float] = defaultdict(float)
    for segment in segments:
        for lang, posterior in segment.posteriors.items():
            mean[lang] += posterior * segment.duration / total
    return dict(mean)
