"""Stage 2: Kaldi-style data dirs to dump/raw: 16 kHz flac, text policy, languages.

    python -m espnet_lora_experts.bin.format_data --langs "es ru" \
        --in_dirs "data/train data/test" --out_dirs "dump/raw/train dump/raw/test"

Dump dirs that were made elsewhere can be checked before they are trained on. Where
utt2lang is missing, it is written if the ids tell it, or the languages are but one:

    python -m espnet_lora_experts.bin.format_data --langs es --check_dirs dump/raw/train
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import unicodedata
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from urllib.parse import quote

from tqdm import tqdm

from espnet_lora_experts.bin import cli
from espnet_lora_experts.bin.dump import check_dir
from espnet_lora_experts.report.kaldi import read_table, write_table
from espnet_lora_experts.whisper import languages
from espnet_lora_experts.whisper.audio import SAMPLE_RATE
from espnet_lora_experts.whisper.spelling import lower
from espnet_lora_experts.whisper.wav_scp import convert_entry

TEXT_POLICIES = {  # case and punctuation
    "raw": ("keep", "keep"),
    "lower": ("lower", "keep"),
    "normalized": ("lower", "remove"),
}
MAX_SECONDS = 30.0
"""Whisper hears no more at once."""
LONGEST_NAME = 200
"""Letters of a file name; file systems take 255."""
AT_ONCE = 1000
"""Utterances that wait for a thread: each takes memory."""
NAMED = 5
"""Utterances that a warning names."""
FEW = 10
"""Utterances of a language that say too little to learn from, or to score with."""


def get_parser() -> argparse.ArgumentParser:
    """Options of this stage."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--in_dirs", default="", help="wav.scp text utt2lang utt2spk")
    task.add_argument(
        "--check_dirs",
        default="",
        help="dump dirs: only check audio; with --langs, languages",
    )
    parser.add_argument("--out_dirs", default="", help="as many folders to write")
    parser.add_argument("--langs", default="", help='language codes, e.g. "es ru"')
    parser.add_argument(
        "--text_policy",
        default="raw",
        choices=TEXT_POLICIES,
        help="raw: as it is; lower: lower case; normalized: as scored (no punctuation)",
    )
    parser.add_argument(
        "--text_case", choices=languages.CASES, help="default: as --text_policy says"
    )
    parser.add_argument(
        "--text_punctuation",
        choices=languages.PUNCTUATIONS,
        help="default: as --text_policy says; remove: also one spelling, as scored",
    )
    parser.add_argument(
        "--keep_other_script",
        type=cli.boolean,
        default=False,
        metavar="{true,false}",
        help="keep texts that are mostly in another script than their language's",
    )
    parser.add_argument(
        "--pooled_dirs",
        default="",
        help="those of --in_dirs that need every language together, not each (tests)",
    )
    parser.add_argument("--min_wav_duration", type=float, default=0.1, help="seconds")
    parser.add_argument(
        "--max_wav_duration", type=float, default=MAX_SECONDS, help="seconds"
    )
    parser.add_argument("--nj", type=int, default=2, help="threads")
    return parser


def main(cmd=None) -> None:
    """Formats every data dir, or checks every dump dir."""
    cli.show_log()
    args = get_parser().parse_args(cmd)
    for folder in args.check_dirs.split():
        check_dir(Path(folder), args.langs.split())
    if args.in_dirs:
        check_options(args)
        format_dirs(args)


def check_options(args: argparse.Namespace) -> None:
    """Refuses options that do not fit together, before anything is written.

    Raises:
        ValueError: Names the option.
    """
    given, wanted = len(args.out_dirs.split()), len(args.in_dirs.split())
    if given != wanted:
        raise ValueError(
            f"--out_dirs must be as many as --in_dirs, but got {given} for {wanted}"
        )
    if not args.langs.split():
        raise ValueError("--langs must be language codes, but got none")
    for code in args.langs.split():
        languages.get(code)
    shortest, longest = args.min_wav_duration, args.max_wav_duration
    if not 0 <= shortest < longest <= MAX_SECONDS:
        raise ValueError(
            "--min_wav_duration and --max_wav_duration must be seconds with 0 <= min < "
            f"max <= {MAX_SECONDS} (Whisper hears no more at once), but got {shortest} "
            f"and {longest}"
        )
    if args.nj < 1:
        raise ValueError(f"--nj must be 1 or more threads, but got {args.nj}")


def format_dirs(args: argparse.Namespace) -> None:
    """Formats every data dir and checks that no language is without utterances.

    Raises:
        ValueError: The dirs of --pooled_dirs lack one.
    """
    pooled = args.pooled_dirs.split()
    found: Counter = Counter()
    for source, target in zip(args.in_dirs.split(), args.out_dirs.split(), strict=True):
        kept = format_dir(Path(source), Path(target), args, source not in pooled)
        found += kept if source in pooled else Counter()
    if pooled:
        check_languages(found, args.langs.split(), " ".join(pooled))


def format_dir(
    source: Path, target: Path, args: argparse.Namespace, complete: bool = True
) -> Counter:
    """Writes one dump dir; utterances that cannot be used are counted by reason.

    Args:
        source: Data dir.
        target: Dump dir.
        args: Options of this stage.
        complete: Whether it must have utterances of every language.

    Returns:
        Number of kept utterances by language.

    Raises:
        FileNotFoundError: A file of the data dir is missing.
        ValueError: Nothing is left, or nothing of a language.
    """
    tables = {
        name: read_table(source / name) for name in ("wav.scp", "text", "utt2lang")
    }
    speakers = source / "utt2spk"
    tables["utt2spk"] = read_table(speakers) if speakers.exists() else {}
    (target / "data").mkdir(parents=True, exist_ok=True)
    work = partial_format(tables, target, args)
    with ThreadPoolExecutor(args.nj) as pool:
        utts = sorted(tables["wav.scp"] | tables["text"])
        parts = (utts[i : i + AT_ONCE] for i in range(0, len(utts), AT_ONCE))
        rows_of = chain.from_iterable(pool.map(work, part) for part in parts)
        done = [*tqdm(rows_of, total=len(utts), desc=str(target), ncols=79)]
    rows = [row for row in done if isinstance(row, dict)]
    _report(dict(zip(utts, done, strict=True)), source, len(rows))
    kept = Counter(row["utt2lang"] for row in rows)
    if rows and complete:
        check_languages(kept, args.langs.split(), str(source))
    write_tables(target, rows)
    return kept


def check_languages(kept: Counter, langs: list[str], where: str) -> None:
    """Warns of languages with few utterances.

    Raises:
        ValueError: A language has none.
    """
    absent = [languages.title(code) for code in langs if not kept[code]]
    if absent:
        raise ValueError(
            f"{where} must have utterances of every language of --langs, but got none"
            f" of {', '.join(absent)} that can be used (what was left out is counted"
            " above); add some, or take the language out of --langs"
        )
    for code in (code for code in langs if kept[code] < FEW):
        logging.warning(
            f"{where}: only {kept[code]} utterance(s) of {languages.title(code)}, too"
            " few to learn from or to score with"
        )


def partial_format(tables, target: Path, args):
    """A function from utterance id to its row, or to why it is left out."""
    wanted = set(args.langs.split())
    case, punctuation = TEXT_POLICIES[args.text_policy]
    policy = args.text_case or case, args.text_punctuation or punctuation

    def work(utt: str) -> dict | str:
        code, text = tables["utt2lang"].get(utt), tables["text"].get(utt, "")
        if utt not in tables["wav.scp"]:
            return "has no audio in wav.scp"
        if code is None:
            return "has no language in utt2lang"
        if code not in wanted:
            return f"is in {code}, not in --langs"
        text = apply_policy(text, code, *policy)
        if not text:
            return "has no text"
        if not args.keep_other_script and languages.in_other_script(text, code):
            wrong = f"{' or '.join(languages.get(code).scripts)} ({code})"
            return f"has text mostly in another script than {wrong}"
        path = target / "data" / file_name(utt)
        samples = _convert(tables["wav.scp"][utt], path)
        if isinstance(samples, str):
            return samples
        if not args.min_wav_duration <= samples / SAMPLE_RATE <= args.max_wav_duration:
            return f"is not {args.min_wav_duration} to {args.max_wav_duration} s long"
        speaker = tables["utt2spk"].get(utt, utt)
        row = {"wav.scp": str(path), "text": text, "utt2lang": code, "utt2spk": speaker}
        return {"utt": utt, **row, "utt2num_samples": str(samples)}

    return work


def file_name(utt: str) -> str:
    """A safe name of the utterance's file; different ids have different names.

    Example:
        >>> file_name("es_a-1.x"), file_name("id7/clip/01"), file_name("..")
        ('es_a-1.x.flac', 'id7%2Fclip%2F01.flac', '%2E..flac')
    """
    name = quote(utt, safe="").replace("~", "%7E")
    if name.startswith("."):
        name = "%2E" + name[1:]
    if len(name) > LONGEST_NAME:
        name = f"{name[:100]}~{hashlib.sha256(utt.encode()).hexdigest()}"
    return f"{name}.flac"


def _convert(source: str, path: Path) -> int | str:
    """Number of samples of the converted file, or why there is none."""
    try:
        return convert_entry(source, path)
    except ValueError as error:
        logging.warning(str(error))
        return "has unreadable or empty audio"


def apply_policy(text: str, code: str, case: str, punctuation: str) -> str:
    """The training text; NFC and single spaces always.

    With its punctuation a text keeps its spelling too (NFC, since NFKC would rewrite
    the full-width marks of Chinese); without, it is as it will be scored.

    Example:
        >>> apply_policy(" ¿Qué  hora es? ", "es", "keep", "keep")
        '¿Qué hora es?'
        >>> apply_policy("¿Qué hora es?", "es", "keep", "remove")
        'Qué hora es'
    """
    if punctuation == "remove":
        return languages.normalize(text, code, case)
    text = " ".join(unicodedata.normalize("NFC", text).split())
    return lower(text, code) if case == "lower" else text


def write_tables(target: Path, rows: list[dict]) -> None:
    """Writes the tables of a dump dir, sorted by utterance."""
    if not rows:
        raise ValueError(f"{target} must get utterances, but none is left; see above")
    names = ("wav.scp", "text", "utt2lang", "utt2spk", "utt2num_samples")
    for name in names:
        write_table(target / name, {row["utt"]: row[name] for row in rows})
    by_speaker: dict[str, list[str]] = {}
    for row in rows:
        by_speaker.setdefault(row["utt2spk"], []).append(row["utt"])
    spk2utt = {spk: " ".join(utts) for spk, utts in sorted(by_speaker.items())}
    write_table(target / "spk2utt", spk2utt)
    write_table(target / "feats_type", {"raw": ""})


def _report(done: dict[str, dict | str], source: Path, kept: int) -> None:
    reasons = Counter(row for row in done.values() if isinstance(row, str))
    for reason, count in reasons.most_common():
        first = [utt for utt, row in done.items() if row == reason][:NAMED]
        more = " ..." if count > NAMED else ""
        logging.warning(
            f"{source}: left out {count} utterance(s): each {reason}:"
            f" {' '.join(first)}{more}"
        )
    logging.info(f"{source}: kept {kept} utterances")


if __name__ == "__main__":
    cli.run(main)
