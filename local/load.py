"""Whether long work leaves anything behind: memory, other results, half a file.

    .venv/bin/python local/load.py                              # an hour on two cores
    .venv/bin/python local/load.py --rows batches --count 2000 --json

After a recipe was run, on its clips and systems. Rows: "batches" and "single"
transcribe with the distilled student, "switches" goes through the language experts and
their mixture and folds each, "threads" calls two systems of one Whisper from four
threads, "cache" lets two processes fetch the same Whisper and kills one of them. Of
each, how many results were not what they were the first time (or alone), and the
resident memory after the warm-up, at the end, and what 1,000 more take.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "4000")

with redirect_stdout(sys.stderr):
    from bench.endurance import ROWS, Endurance, Recipe

RECIPE = Path(__file__).resolve().parents[1] / "egs2/mini_multilingual/asr1"
HEAD = """\
| row | work | count | differing | MiB, warm | MiB, end | MiB per 1,000 |
|---|---|---|---|---|---|---|"""


def get_parser() -> argparse.ArgumentParser:
    """Options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    add("--count", type=int, default=10_000, help="clips, switches; less where slow")
    add("--recipe", type=Path, default=RECIPE, help="folder with exp and dump/raw")
    add("--seed", type=int, default=1, help="of when a process is killed")
    add("--json", action="store_true", help="print JSON, not a table")
    return parser


def line(done: Endurance) -> str:
    """A row of the table."""
    memory = ["-", "-", "-"]
    if done.slope is not None:
        ends = done.warm[0][1], done.warm[-1][1]
        memory = [*(f"{mib:,.0f}" for mib in ends), f"{done.slope:+.2f}"]
    cells = [done.row, done.work, f"{done.count:,}", str(done.wrong), *memory]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Runs the rows; the exit status is 1 where a result differed."""
    parser = get_parser()
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    if args.count < 1:
        parser.error(f"--count must be 1 or more, but got {args.count}")
    recipe = Recipe(args.recipe.resolve(), args.count, args.seed)
    results = []
    for name in args.rows:
        with redirect_stdout(sys.stderr):
            results.append(ROWS[name](recipe))
        print(line(results[-1]), file=sys.stderr, flush=True)
    if args.json:
        shown = [asdict(done) | {"mib_per_1000": done.slope} for done in results]
        print(json.dumps(shown, indent=1))
    else:
        print("\n".join([HEAD, *map(line, results)]))
    sys.exit(any(done.wrong for done in results))


if __name__ == "__main__":
    main()
