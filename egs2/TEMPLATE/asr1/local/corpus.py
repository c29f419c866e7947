"""Stage 1 for corpora with official splits: screen what a reader finds, count, write.

A reader is a function ``read(lang, split)`` that yields utterances. What cannot be used
is left out, counted by reason, and named in ``<data_dir>/left_out.tsv``.
"""

import argparse
import heapq
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from data_dir import Utterance, draw, write_kaldi
from writing import is_foreign, scripts_of

from espnet_lora_experts import atomic
from espnet_lora_experts.whisper import languages

logger = logging.getLogger(__name__)
SPLITS = ("test", "dev", "train")
"""In the order in which they are read: what is in one is not in a later one."""
FEW = 50
"""Training utterances below which a language is warned of."""
NAMED = 3
"""Offenders that a line of the log names; left_out.tsv has all of them."""
FOREIGN = "is not in the language's script"
Read = Callable[[str, str], Iterable[Utterance]]


def get_parser(about: str | None) -> argparse.ArgumentParser:
    """The options that all corpora share."""
    parser = argparse.ArgumentParser(
        prog="local/data.sh",
        description=about,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--langs", default="", help="Whisper's codes, separated by spaces")
    add("--data_dir", type=Path, default=Path("data"), help="holds train, dev and test")
    add("--download_dir", help="of the backbone's packages; not used here")
    for name in SPLITS:
        add(f"--max_{name}", type=int, help=f"utterances of each language in {name}")
    add("--seed", type=int, default=0, help="another seed, another choice of them")
    return parser


def parse_langs(text: str, known: Iterable[str] = ()) -> list[str]:
    """Languages of a list separated by spaces or commas.

    Args:
        text: The list.
        known: Languages of the corpus; none: all of Whisper's and their relatives.

    Raises:
        ValueError: When there is none, or one is unknown.
    """
    langs = list(dict.fromkeys(text.replace(",", " ").split()))
    if not langs:
        raise ValueError("--langs must name languages, but got none")
    for lang in langs:
        languages.get(lang)
    unknown = sorted(set(langs) - set(known)) if known else []
    if unknown:
        raise ValueError(
            f"--langs must be languages of the corpus, but got {' '.join(unknown)};"
            f" known: {' '.join(sorted(known))}"
        )
    return langs


@dataclass
class Found:
    """What is kept, and what is left out and why.

    Attributes:
        kept: Utterances of each split.
        left: (split, language, utterance, reason) of each that is left out.
        numbers: Utterances kept of each (split, language).
    """

    kept: dict[str, list[Utterance]] = field(
        default_factory=lambda: {split: [] for split in SPLITS}
    )
    left: list[tuple[str, str, str, str]] = field(default_factory=list)
    numbers: Counter = field(default_factory=Counter)


def prepare(args: argparse.Namespace, langs: list[str], read: Read) -> None:
    """Read, screen and write all splits of the languages.

    Raises:
        ValueError: When a corpus lacks something that it must have, or a language has
            nothing to train on. No data dir is written then.
    """
    limits = {split: getattr(args, f"max_{split}") for split in SPLITS}
    found = Found()
    for lang in langs:
        collect(found, lang, read, limits, args.seed)
    report(found, args.data_dir)
    require(found, langs)
    for split, members in found.kept.items():
        write_kaldi(args.data_dir / split, members)
    print(table(found.numbers, langs))


def collect(
    found: Found, lang: str, read: Read, limits: dict[str, int | None], seed: int
) -> None:
    """Add a language's utterances, at most ``limits[split]`` of each split."""
    taken: set[str] = set()
    for split in SPLITS:
        seen: set[str] = set()
        members, foreign = [], 0
        for row in read(lang, split):
            reason = fault(row, seen, taken)
            strange = not reason and is_foreign(row.text, lang)
            foreign += strange
            if reason or (strange and split == "train"):
                found.left.append((split, lang, row.utt, reason or FOREIGN))
            else:
                members.append(row)
            seen.add(row.utt)
        check_script(lang, split, foreign, len(seen))
        taken |= seen
        if limits[split] is not None:
            drawn = [(draw(row.utt, seed), row.utt, row) for row in members]
            members = [row for *_, row in heapq.nsmallest(limits[split], drawn)]
        found.kept[split] += members
        found.numbers[split, lang] = len(members)


def fault(row: Utterance, seen: set[str], taken: set[str]) -> str:
    """Why an utterance cannot be used, or "" when it can."""
    if row.utt in seen:
        return "has an id that was there before"
    if row.utt in taken:
        return "is in dev or test too"
    if not row.text:
        return "has no text"
    if not row.audio.endswith("|") and not os.path.isfile(row.audio):
        return "has no audio file"
    return ""


def check_script(lang: str, split: str, foreign: int, total: int) -> None:
    """Stop where most text is in another script; in dev and test few are kept.

    Official test sets stay whole, so that results compare.

    Raises:
        ValueError: More than half of the utterances are in another script.
    """
    if 2 * foreign > total:
        raise ValueError(
            f"{split} of {lang} must be in {' or '.join(sorted(scripts_of(lang)))}"
            f" letters, but {foreign} of {total} utterances are not; is it another"
            " language's folder?"
        )
    if foreign and split != "train":
        logger.warning("%s of %s: %d %s; kept", split, lang, foreign, FOREIGN)


def report(found: Found, data_dir: Path) -> None:
    """Log how many are left out and why; write all their names to left_out.tsv."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for split, lang, utt, reason in found.left:
        groups.setdefault((split, lang, reason), []).append(utt)
    for (split, lang, reason), utts in groups.items():
        named = " ".join(utts[:NAMED]) + (" ..." if len(utts) > NAMED else "")
        logger.warning(
            "%s of %s: left out %d that %s: %s", split, lang, len(utts), reason, named
        )
    rows = ["\t".join(row) + "\n" for row in found.left]
    atomic.write_text(
        data_dir / "left_out.tsv", "split\tlang\tutt\treason\n" + "".join(rows)
    )


def require(found: Found, langs: list[str]) -> None:
    """Stop where a language cannot be trained, warn where it hardly can.

    Raises:
        ValueError: Names the languages, or the split, without utterances.
    """
    for lang in langs:
        if not found.numbers["train", lang]:
            raise ValueError(
                f"train of {lang} must have utterances, but has none; leave {lang} out"
                " of --langs, or see left_out.tsv for what was found and not usable"
            )
    numbers = {lang: found.numbers["train", lang] for lang in langs}
    few = [f"{lang} {n}" for lang, n in numbers.items() if n < FEW]
    if few:
        logger.warning("few utterances to train on: %s", ", ".join(few))
    for split in ("dev", "test"):
        without = [lang for lang in langs if not found.numbers[split, lang]]
        if without:
            logger.warning("%s has no utterances of %s", split, " ".join(without))
    empty = [split for split, members in found.kept.items() if not members]
    if empty:
        raise ValueError(f"{empty[0]} must have utterances, but no language has any")


def table(numbers: Counter, langs: list[str]) -> str:
    """Utterances of each language and split."""
    rows = ["lang  split     utts"]
    for lang in langs:
        rows += [f"{lang:4s}  {s:5s}  {numbers[s, lang]:7d}" for s in reversed(SPLITS)]
    return "\n".join(rows)


def required(path: Path, what: str) -> Path:
    """A path that a corpus must have.

    Raises:
        ValueError: It has not; names what is there instead.
    """
    if path.exists():
        return path
    there = sorted(os.listdir(path.parent)) if path.parent.is_dir() else []
    raise ValueError(
        f"{what} must have {path.name} in {path.parent}, but has not; there is:"
        f" {' '.join(there[:12]) or 'no such folder'}"
    )


def lines_of(path: Path) -> Iterator[str]:
    """Lines of a text file without their ends; only a newline ends a line."""
    with path.open(encoding="utf-8", newline="\n") as stream:
        for line in stream:
            yield line.rstrip("\r\n")
