"""What adding a language to a finished run needs: its facts, and lists put together.

    python -m espnet_lora_experts.bin.add_lang facts --expdir exp --langs be
    python -m espnet_lora_experts.bin.add_lang join dump/raw/test dump/be/raw/test out

``facts`` checks that the languages can be added, then prints ``langs`` with all of them
and, for each system to extend, its name and steps. ``join`` writes the tables that two
folders have, of data or of transcripts, as one.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from espnet_lora_experts.bin import cli
from espnet_lora_experts.report.kaldi import read_table, write_table
from espnet_lora_experts.whisper import languages
from espnet_lora_experts.whisper.description import DESCRIPTION, read_description

SYSTEMS = ("mole", "kd")
TABLES = ("wav.scp", "text", "utt2lang", "utt2spk", "utt2num_samples", "lang")


def get_parser() -> argparse.ArgumentParser:
    """Options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    tasks = parser.add_subparsers(dest="task", required=True)
    facts = tasks.add_parser("facts", help="check and print")
    facts.add_argument("--expdir", default="exp", type=Path, help="of the old run")
    facts.add_argument("--langs", required=True, help="the languages to add")
    facts.add_argument(
        "--share", type=int, default=20, help="%% of the old systems' steps to take"
    )
    join = tasks.add_parser("join", help="two folders' tables as one")
    join.add_argument("first", type=Path)
    join.add_argument("second", type=Path)
    join.add_argument("output", type=Path)
    return parser


def main(cmd=None) -> None:
    """Prints the facts, or writes the tables."""
    args = get_parser().parse_args(cmd)
    if args.task == "join":
        join(args.first, args.second, args.output)
        return
    known = check(args.expdir, args.langs.split())
    print("langs", *known, *args.langs.split())
    for name, steps in steps_of(args.expdir, args.share).items():
        print(name, steps)


def check(expdir: Path, added: list[str]) -> list[str]:
    """The languages of the old run's experts.

    Raises:
        FileNotFoundError: It has no experts.
        ValueError: A language is unknown, named twice or there already.
    """
    known = read_description(expdir / "mono")["languages"]
    for i, code in enumerate(added):
        languages.get(code)
        if code in known or code in added[:i]:
            raise ValueError(
                f"a language to add must be new, but got {code}; {expdir / 'mono'} has "
                f"{known}"
            )
    return known


def steps_of(expdir: Path, share: int) -> dict[str, int]:
    """Steps to extend each system in: a share of what it was trained for, at least 1.

    Raises:
        ValueError: There is none to extend, or the share is no percentage.
    """
    if not 0 < share <= 100:
        raise ValueError(f"--share must be 1 to 100 (%), but got {share}")
    there = [name for name in SYSTEMS if (expdir / name / DESCRIPTION).is_file()]
    if not there:
        raise ValueError(
            f"{expdir} must have a system to extend, of {', '.join(SYSTEMS)}, but has "
            "none; train it first (stages 7 and 8)"
        )
    steps = {name: read_description(expdir / name)["steps"] for name in there}
    return {name: max(1, n * share // 100) for name, n in steps.items()}


def join(first: Path, second: Path, output: Path) -> None:
    """Writes the tables that both folders have, rows sorted by utterance.

    Raises:
        FileNotFoundError: The folders have no text.
        ValueError: An utterance is in both.
    """
    output.mkdir(parents=True, exist_ok=True)
    for name in TABLES:
        if name == "text" or all((x / name).is_file() for x in (first, second)):
            one, other = read_table(first / name), read_table(second / name)
            if both := sorted(one.keys() & other.keys()):
                raise ValueError(
                    f"{first / name} and {second / name} must have different "
                    f"utterances, but {len(both)} are in both, such as {both[0]}"
                )
            write_table(output / name, dict(sorted({**one, **other}.items())))


if __name__ == "__main__":
    cli.run(main)
