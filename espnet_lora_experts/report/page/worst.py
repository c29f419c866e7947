"""The utterances that a system got most wrong, aligned with what was said."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import jiwer
import numpy as np
import soundfile

from espnet_lora_experts.report import errors
from espnet_lora_experts.report.results import Decoded
from espnet_lora_experts.whisper import languages

MOST_PIECES = 60
"""Most pieces of an alignment that are shown: a decoder that loops makes hundreds."""


@dataclass(frozen=True)
class Piece:
    """Words that stand under each other: ``kind`` as jiwer names it."""

    kind: str
    reference: str
    hypothesis: str


@dataclass(frozen=True)
class Utterance:
    """An utterance with its errors.

    Attributes:
        utt: Its id.
        lang: Its language.
        found: The language that the system found; None if it was told.
        rate: Errors over reference length, in percent.
        errors: Number of errors.
        unit: What was counted, words or characters.
        pieces: The alignment, its first :data:`MOST_PIECES`.
        more: Number of pieces left out.
    """

    utt: str
    lang: str
    found: str | None
    rate: float
    errors: int
    unit: str
    pieces: Sequence[Piece]
    more: int = 0


def worst(utts: Sequence[str], decoded: Decoded, count: int) -> list[Utterance]:
    """The utterances with the highest error rates, the worst first.

    Args:
        utts: Ids, in the order of the texts.
        decoded: What the system made of them.
        count: How many; fewer where fewer have errors.
    """
    ranked = []
    for row, lang in enumerate(decoded.langs):
        texts = [decoded.references[row]], [decoded.hypotheses[row]]
        counts_14 = errors.count_errors(*texts, unit_of(lang))
        wrong = int(counts_14[0, : errors.REF].sum())
        if wrong:
            ranked.append((-errors.rate(counts_14), -wrong, utts[row], row))
    return [
        _utterance(utt, decoded, row, -rate, -wrong)
        for rate, wrong, utt, row in sorted(ranked)[:count]
    ]


def _utterance(utt: str, decoded: Decoded, row: int, rate: float, wrong: int):
    lang = decoded.langs[row]
    pieces = align(decoded.references[row], decoded.hypotheses[row], unit_of(lang))
    return Utterance(
        utt=utt,
        lang=lang,
        found=decoded.found[row] if decoded.found else None,
        rate=rate,
        errors=wrong,
        unit={"word": "words", "char": "characters"}[unit_of(lang)],
        pieces=pieces[:MOST_PIECES],
        more=max(0, len(pieces) - MOST_PIECES),
    )


def unit_of(lang: str) -> str:
    """What is counted in a language."""
    return "word" if languages.get(lang).metric == "wer" else "char"


def align(reference: str, hypothesis: str, unit: str) -> list[Piece]:
    """Aligns two normalised texts, one word or character a piece; equal ones together.

    Example:
        >>> for piece in align("a b c", "a b x", "word"):
        ...     piece.kind, piece.reference, piece.hypothesis
        ('equal', 'a b', 'a b')
        ('substitute', 'c', 'x')
    """
    process = {"word": jiwer.process_words, "char": jiwer.process_characters}[unit]
    space = {"word": " ", "char": ""}[unit]
    made = process([reference], [hypothesis])
    said, heard = made.references[0], made.hypotheses[0]
    pieces = []
    for chunk in made.alignments[0]:
        a = said[chunk.ref_start_idx : chunk.ref_end_idx]
        b = heard[chunk.hyp_start_idx : chunk.hyp_end_idx]
        if chunk.type == "equal":
            pieces.append(Piece("equal", space.join(a), space.join(b)))
        elif chunk.type == "substitute":
            pairs = zip(a, b, strict=True)
            pieces += [Piece("substitute", left, right) for left, right in pairs]
        else:
            pieces += [Piece("delete", left, "") for left in a]
            pieces += [Piece("insert", "", right) for right in b]
    return pieces


def as_ogg(samples_S: np.ndarray, rate: int) -> str:
    """A clip as a ``data:`` address of Ogg Opus.

    Args:
        samples_S: One channel in [-1, 1].
        rate: Samples a second: 8000, 12000, 16000, 24000 or 48000.
    """
    buffer = io.BytesIO()
    with soundfile.SoundFile(
        buffer, "w", rate, 1, format="OGG", subtype="OPUS", compression_level=0.9
    ) as file:
        file.write(samples_S)
    return "data:audio/ogg;base64," + base64.b64encode(buffer.getvalue()).decode()
