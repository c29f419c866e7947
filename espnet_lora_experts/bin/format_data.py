"""Stage 2: Kaldi-style data dirs to dump/raw: 16 kHz flac, text policy, languages.

    python -m espnet_lora_experts.bin.format_data --langs "es ru" \
        --in_dirs "data/train data/test" --out_dirs "dump/raw/train dump/raw/test"

Dump dirs that were made elsewhere can be checked before they are trained on:

    python -m espnet_lora_experts.bin.format_data --check_dirs "dump/raw/train"
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import random
import re
import unicodedata
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import soundfile
from tqdm import tqdm

from espnet_lora_experts.bin import cli
from espnet_lora_experts.report.kaldi import read_table, write_table
from espnet_lora_experts.whisper import languages
from espnet_lora_experts.whisper.audio import SAMPLE_RATE
from espnet_lora_experts.whisper.wav_scp import convert_entry

TEXT_POLICIES = ("raw", "lower", "normalized")
MAX_SECONDS = 30.0
"""Whisper hears no more at once."""
LONGEST_NAME = 200
"""Letters of a file name; file systems take 255."""
FIRST, SOME = 5, 20
"""Utterances of a dump dir whose audio is checked: from its start, and at random."""


def get_parser() -> argparse.ArgumentParser:
    """Options of this stage."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--in_dirs", default="", help="wav.scp text utt2lang utt2spk")
    task.add_argument(
        "--check_dirs", default="", help="dump dirs: only check that they are at 16 kHz"
    )
    parser.add_argument("--out_dirs", default="", help="as many folders to write")
    parser.add_argument("--langs", default="", help='language codes, e.g. "es ru"')
    parser.add_argument(
        "--text_policy",
        default="raw",
        choices=TEXT_POLICIES,
        help="raw: as it is; lower: lower case; normalized: as scored (no punctuation)",
    )
    parser.add_argument("--min_wav_duration", type=float, default=0.1, help="seconds")
    parser.add_argument(
        "--max_wav_duration", type=float, default=MAX_SECONDS, help="seconds"
    )
    parser.add_argument("--nj", type=int, default=2, help="threads")
    return parser


def main(cmd=None) -> None:
    """Formats every data dir, or checks every dump dir."""
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s: %(message)s")
    args = get_parser().parse_args(cmd)
    for folder in args.check_dirs.split():
        check_dir(Path(folder))
    if args.in_dirs:
        check_options(args)
        pairs = zip(args.in_dirs.split(), args.out_dirs.split(), strict=True)
        for source, target in pairs:
            format_dir(Path(source), Path(target), args)


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


def format_dir(source: Path, target: Path, args: argparse.Namespace) -> None:
    """Writes one dump dir; utterances that cannot be used are counted by reason.

    Raises:
        FileNotFoundError: A file of the data dir is missing.
        ValueError: Nothing is left.
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
        done = [
            *tqdm(pool.map(work, utts), total=len(utts), desc=str(target), ncols=79)
        ]
    rows = [row for row in done if isinstance(row, dict)]
    _report(Counter(row for row in done if isinstance(row, str)), source, len(rows))
    write_tables(target, rows)


def partial_format(tables, target: Path, args):
    """A function from utterance id to its row, or to why it is left out."""
    wanted = set(args.langs.split())

    def work(utt: str) -> dict | str:
        code, text = tables["utt2lang"].get(utt), tables["text"].get(utt, "")
        if utt not in tables["wav.scp"]:
            return "has no audio in wav.scp"
        if code is None:
            return "has no language in utt2lang"
        if code not in wanted:
            return f"is in {code}, not in --langs"
        text = apply_policy(text, code, args.text_policy)
        if not text:
            return "has no text"
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


def apply_policy(text: str, code: str, policy: str) -> str:
    """The training text under a policy; NFC and single spaces always.

    Example:
        >>> apply_policy(" ¿Qué  hora es? ", "es", "raw")
        '¿Qué hora es?'
        >>> apply_policy("¿Qué hora es?", "es", "normalized")
        'qué hora es'
    """
    if policy == "normalized":
        return languages.normalize(text, code)
    text = re.sub(r"\s+", " ", unicodedata.normalize("NFC", text)).strip()
    return text.lower() if policy == "lower" else text


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


def check_dir(folder: Path) -> None:
    """Checks that a dump dir's audio is at 16 kHz: some headers, not all.

    ESPnet's reader drops the sampling rate, so that training would hear anything else
    slowed down or sped up, and never say so.

    Raises:
        FileNotFoundError: No wav.scp.
        ValueError: An utterance's audio is unreadable or at another rate.
    """
    wavs = read_table(folder / "wav.scp")
    chosen = random.Random(0).sample([*wavs], min(SOME, len(wavs)))
    for utt in [*wavs][:FIRST] + chosen:
        try:
            rate = soundfile.info(wavs[utt]).samplerate
        except soundfile.LibsndfileError as error:
            rate = error
        if rate != SAMPLE_RATE:
            raise ValueError(
                f"{folder}: utterance {utt} must be a file at {SAMPLE_RATE} Hz, but "
                f"got {rate} ({wavs[utt]}); run stage 2, which converts any audio"
            )


def _report(reasons: Counter, source: Path, kept: int) -> None:
    for reason, count in reasons.most_common():
        logging.warning(f"{source}: left out {count} utterance(s): each {reason}")
    logging.info(f"{source}: kept {kept} utterances")


if __name__ == "__main__":
    cli.run(main)
