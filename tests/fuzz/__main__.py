"""Fuzzes every parser of files that may come from strangers, and prints a table.

    python -m tests.fuzz --runs 100000
    python -m tests.fuzz --parsers "ggml ct2" --seconds 60 --seed 7

Any bytes must give a value, or a ValueError or FileNotFoundError that names the file:
never another exception, a crash of the interpreter, a hang (10 s of computing for one
input), or more than 2 GiB of memory. Inputs that do are kept in --keep, for a test.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.fuzz.mutate import Case
from tests.fuzz.parsers import MAKERS
from tests.fuzz.worker import outcomes


def get_parser() -> argparse.ArgumentParser:
    """Options."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--runs", type=int, default=2000, help="inputs of each parser")
    add("--seconds", type=float, default=1e9, help="of computing, at most for each")
    add("--seed", type=int, default=1)
    add("--parsers", default=" ".join(MAKERS), help=f"of: {' '.join(MAKERS)}")
    add("--keep", type=Path, default=Path("fuzz"), help="where failing inputs go")
    return parser


def main(cmd=None) -> int:
    """Fuzzes the parsers one by one; returns 1 if one failed."""
    args = get_parser().parse_args(cmd)
    row = "{:<17} {:>8} {:>9} {:>6} {:>7} {:>8} {:>8} {:>8} {:>6}"
    head = "parser inputs accepted lines places seconds grown_MiB crashes hangs"
    print(row.format(*head.split()), flush=True)
    failed = False
    for one in outcomes(args.parsers.split(), args.runs, args.seed, args.seconds):
        seen = one.inputs, one.accepted, one.lines, one.places
        cost = f"{one.seconds:.0f}", one.grown
        print(row.format(one.parser, *seen, *cost, one.crashes, one.hangs), flush=True)
        for number, (what, (text, case)) in enumerate(one.failures.items()):
            folder = args.keep / f"{one.parser}.{number}"
            keep(case, folder)
            print(f"    {folder}: {what}: {' '.join(text.split())}", flush=True)
        failed = failed or bool(one.failures)
    return int(failed)


def keep(case: Case, folder: Path) -> None:
    """Writes the files of a case."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in case.items():
        (folder / name).write_bytes(content)


if __name__ == "__main__":
    sys.exit(main())
