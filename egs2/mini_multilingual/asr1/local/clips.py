"""Clips of recorded speech: screening, splitting and Kaldi-style folders."""

import hashlib
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import soundfile

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


def one_line(text: str) -> str:
    """Text with every run of whitespace made one space, as Kaldi's files need."""
    return " ".join(text.split())


def slug(name: str) -> str:
    """``name`` with everything but ASCII letters, digits and hyphens made ``_``."""
    return re.sub(r"[^A-Za-z0-9-]+", "_", name)


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


def draw(key: str, seed: int) -> float:
    """A number in [0, 1) that depends on ``key`` and ``seed`` alone."""
    bits = hashlib.sha256(f"{seed}:{key}".encode()).digest()[:8]
    return int.from_bytes(bits, "big") / 2**64


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


def write_kaldi(folder: Path, clips: list[Clip]) -> None:
    """Write wav.scp, text, utt2lang, utt2spk and spk2utt, sorted by key.

    Raises:
        ValueError: When two clips have one ``utt``.
    """
    repeated = [utt for utt, n in Counter(clip.utt for clip in clips).items() if n > 1]
    if repeated:
        raise ValueError(f"utterance ids must be unique, but got {repeated[:5]} twice")
    speakers = defaultdict(list)
    for clip in sorted(clips, key=lambda clip: clip.utt):
        speakers[clip.speaker].append(clip.utt)
    write_table(folder / "wav.scp", clips, lambda clip: str(clip.audio.resolve()))
    write_table(folder / "text", clips, lambda clip: clip.text)
    write_table(folder / "utt2lang", clips, lambda clip: clip.lang)
    write_table(folder / "utt2spk", clips, lambda clip: clip.speaker)
    lines = [f"{name} {' '.join(utts)}\n" for name, utts in sorted(speakers.items())]
    write_whole(folder / "spk2utt", "".join(lines))


def write_table(path: Path, clips: list[Clip], value: Callable[[Clip], str]) -> None:
    """Write ``<utt> <value>`` lines."""
    lines = sorted((clip.utt, value(clip)) for clip in clips)
    write_whole(path, "".join(f"{utt} {text}\n" for utt, text in lines))


def write_whole(path: Path, content: str) -> None:
    """Write a file so that it is whole or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_text(content, encoding="utf-8")
    os.replace(scratch, path)
