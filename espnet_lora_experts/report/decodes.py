"""Reads references and decoded folders, writes sclite's trn files.

A decoded folder is ``<system>/decode_<mode>/<set>`` with Kaldi's ``text`` (a hypothesis
may be empty), ``lang`` (language-agnostic only) and ``decode.json``.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from espnet_lora_experts import atomic
from espnet_lora_experts.report.kaldi import read_table
from espnet_lora_experts.whisper.languages import MODES, normalize

Normalizer = Callable[[str, str], str]
"""From a text and the code of its language to the text as it is scored."""
_ONLY = {"mono": ("aware",), "two_pass": ("agnostic",)}


@dataclass(frozen=True)
class TestSet:
    """References of one set, in one order, normalised as its hypotheses will be."""

    __test__ = False  # no test class

    name: str
    utts: list[str]
    langs: list[str]
    texts: list[str]
    speakers: list[str]
    normalize: Normalizer = normalize


@dataclass(frozen=True)
class Decode:
    """What a system made of a test set; texts are normalised by the true language."""

    texts: list[str]
    langs: list[str] | None  # found by the system; None when the language was given
    rtf: float | None  # seconds of computing per second of audio


def modes_of(system: str) -> tuple[str, ...]:
    """Modes that a system has: a single expert needs a language, two passes find it.

    ``NAME_TAG``, a variant of NAME, and ``NAME@WAY``, NAME decoded in another way,
    have those of NAME.

    Example:
        >>> modes_of("mono_r_8"), modes_of("two_pass@kd")
        (('aware',), ('agnostic',))
    """
    name = f"{system.partition('@')[0]}_"
    own = (modes for known, modes in _ONLY.items() if name.startswith(f"{known}_"))
    return next(own, (*MODES,))


def raw(text: str, code: str) -> str:
    """A text as it is."""
    return text


def read_test_sets(
    data_root: Path, names: Sequence[str], normalize: Normalizer = normalize
) -> list[TestSet]:
    """References of every set.

    Raises:
        ValueError: When no set is named, or one is missing or broken.
    """
    if not names:
        raise ValueError("test sets must be named, but got none")
    return [read_test_set(data_root / name, normalize) for name in names]


def read_test_set(folder: Path, normalize: Normalizer = normalize) -> TestSet:
    """References of ``dump/raw/<set>``: text, utt2lang and, if there, utt2spk."""
    texts = read_table(folder / "text")
    langs = read_table(folder / "utt2lang")
    require(texts, langs, f"{folder}/utt2lang")
    has_speakers = (folder / "utt2spk").is_file()
    speakers = read_table(folder / "utt2spk") if has_speakers else {}
    utts = sorted(texts)
    return TestSet(
        name=folder.name,
        utts=utts,
        langs=[langs[utt] for utt in utts],
        texts=[normalize(texts[utt], langs[utt]) for utt in utts],
        speakers=[speakers.get(utt, utt) for utt in utts],
        normalize=normalize,
    )


def of_languages(test_set: TestSet, langs: Sequence[str]) -> TestSet:
    """The references of some languages."""
    rows = [i for i, lang in enumerate(test_set.langs) if lang in langs]
    columns = {
        name: [getattr(test_set, name)[i] for i in rows]
        for name in ("utts", "langs", "texts", "speakers")
    }
    return replace(test_set, **columns)


def read_decode(folder: Path, test_set: TestSet, agnostic: bool) -> Decode:
    """Hypotheses of a decoded folder in the order of the references.

    Args:
        folder: ``<system>/decode_<mode>/<set>``.
        test_set: Its references.
        agnostic: Whether the system had to find the language.

    Raises:
        ValueError: When the utterances are not those of the test set.
    """
    texts = read_table(folder / "text")
    require(test_set.utts, texts, f"{folder}/text")
    found = None
    if agnostic:
        langs = read_table(folder / "lang")
        require(test_set.utts, langs, f"{folder}/lang")
        found = [langs[utt] for utt in test_set.utts]
    said = (texts[utt] for utt in test_set.utts)
    texts_U = [*map(test_set.normalize, said, test_set.langs)]
    return Decode(texts_U, found, rtf(folder))


def rtf(folder: Path) -> float | None:
    """Real-time factor of a decoded folder, None where it was not measured."""
    path = folder / "decode.json"
    if not path.is_file():
        return None
    return json.loads(path.read_text(encoding="utf-8")).get("rtf")


def require(expected: Iterable[str], got: Iterable[str], what: str) -> None:
    """Raise a ValueError unless both are the same utterances."""
    wanted, given = set(expected), set(got)
    missing, extra = sorted(wanted - given), sorted(given - wanted)
    if missing or extra:
        raise ValueError(
            f"{what} must have the {len(wanted)} utterances of the references, but got"
            f" {len(given)}: {len(missing)} missing {missing[:3]},"
            f" {len(extra)} unknown {extra[:3]}"
        )


def write_trn(folder: Path, test_set: TestSet, texts: list[str]) -> None:
    """Write ``score_{wer,cer}/{ref,hyp}.trn`` as ESPnet's asr.sh does.

    A line is tokens, a tab and ``(<speaker>-<utterance>)``; a space is ``<space>``
    among characters. The texts are normalised, so sclite's rates are ours.
    """
    units: dict[str, Callable[[str], list[str]]] = {"wer": str.split, "cer": characters}
    for name, split in units.items():
        for kind, side in (("ref", test_set.texts), ("hyp", texts)):
            ids = zip(side, test_set.speakers, test_set.utts, strict=True)
            lines = [f"{' '.join(split(t))}\t({s}-{u})\n" for t, s, u in ids]
            atomic.write_text(folder / f"score_{name}" / f"{kind}.trn", "".join(lines))


def characters(text: str) -> list[str]:
    """Characters of a text, a space as ``<space>``."""
    return ["<space>" if character == " " else character for character in text]
