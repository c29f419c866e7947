"""Clips of recorded speech: screening and splitting."""

import hashlib
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import soundfile
from data_dir import draw

SPLITS = ("train", "dev", "test")
TEST_SHARE, DEV_SHARE = 0.15, 0.10  # of the groups, hence about that of the clips
MIN_SECONDS, MAX_SECONDS = 0.3, 30.0
MAX_RATE = 30.0  # characters per second; nobody speaks that fast: the text says more


@dataclass(frozen=True)
class Clip:
    """One recording of one sentence."""

    utt: str  # unique, starts with the speaker
    speaker: str
    lang: str  # Whisper's code
    text: str  # as in the corpus, one line; "" when there is none
    audio: Path  # any format that soundfile reads
    group: str  # clips of one group share a split, in every language
    digest: str  # hash of the audio file
    seconds: float = 0.0


def text_key(text: str) -> str:
    """Letters, digits and marks only, case folded: equal keys are equal sentences."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(c for c in folded if unicodedata.category(c)[0] in "LNM")


def digest(path: Path) -> str:
    """Hash of a file's content."""
    return hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest()


def duration(path: Path) -> float | None:
    """Length in seconds, or None when the file cannot be read as audio."""
    try:
        info = soundfile.info(path)
    except (OSError, RuntimeError):  # soundfile's errors are RuntimeErrors
        return None
    return info.frames / info.samplerate


def screen(clips: Iterable[Clip]) -> tuple[list[Clip], Counter]:
    """Drop what cannot be used, and repeated sentences and recordings.

    Returns:
        The kept clips, sorted by ``utt`` and with ``seconds`` set, and the number
        dropped of each (language, reason).
    """
    kept, dropped, seen = [], Counter(), set()
    for clip in sorted(clips, key=lambda clip: clip.utt):
        clip = replace(clip, seconds=duration(clip.audio) or 0.0)
        same = {(clip.lang, text_key(clip.text)), (clip.lang, clip.digest)}
        reason = fault(clip) or ("repeated" if same & seen else "")
        if reason:
            dropped[clip.lang, reason] += 1
        else:
            seen |= same
            kept.append(clip)
    return kept, dropped


def fault(clip: Clip) -> str:
    """Why a clip cannot be used, or "" when it can."""
    if not text_key(clip.text):
        return "no text"
    if clip.seconds == 0.0:
        return "unreadable audio"
    if clip.seconds < MIN_SECONDS:
        return f"under {MIN_SECONDS} s"
    if clip.seconds > MAX_SECONDS:
        return f"over {MAX_SECONDS:.0f} s"
    if len(clip.text) > MAX_RATE * clip.seconds:
        return f"text longer than its audio (over {MAX_RATE:.0f} characters/s)"
    return ""


def split_of(group: str, seed: int = 0) -> str:
    """The split of a group: decided by its name, not by what else there is."""
    share = draw(group, seed)
    if share < TEST_SHARE:
        return "test"
    return "dev" if share < TEST_SHARE + DEV_SHARE else "train"


def split(
    clips: Iterable[Clip], limits: dict[str, int | None], seed: int = 0
) -> dict[str, list[Clip]]:
    """Clips of each split, at most ``limits[split]`` of each language (None: all).

    A limit keeps the same groups in every language, as far as they have them.
    """
    pools: dict[tuple[str, str], list[Clip]] = defaultdict(list)
    for clip in clips:
        pools[split_of(clip.group, seed), clip.lang].append(clip)
    chosen: dict[str, list[Clip]] = {name: [] for name in SPLITS}
    for (name, _), pool in pools.items():
        pool.sort(key=lambda clip: (draw("order:" + clip.group, seed), clip.utt))
        chosen[name] += pool[: limits.get(name)]
    return {name: sorted(pool, key=lambda c: c.utt) for name, pool in chosen.items()}
