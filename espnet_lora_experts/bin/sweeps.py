"""Print one Markdown table for each sweep: variants, WER, intervals, p-values.

python -m espnet_lora_experts.bin.sweeps conf/sweeps/*.txt --expdir exp
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from espnet_lora_experts.bin import cli
from espnet_lora_experts.report.sweeps import NOTE, read_sweep, table
from espnet_lora_experts.whisper.description import read_json


def get_parser() -> argparse.ArgumentParser:
    """Build the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sweeps", nargs="+", type=Path, help="their files")
    parser.add_argument(
        "--expdir", type=Path, default="exp", help="holds sweeps/NAME/results.json"
    )
    return parser


def main(cmd: Sequence[str] | None = None) -> None:
    """Print the tables of the sweeps that were run; name the others."""
    args = get_parser().parse_args(cmd)
    for path in args.sweeps:
        results = args.expdir / "sweeps" / path.stem / "results.json"
        if results.is_file():
            sweep = read_sweep(path.read_text(encoding="utf-8"))
            print(f"`{path}`: {table(sweep, read_json(results))}")
        else:
            logging.warning(f"{path}: not run, there is no {results}")
    print(NOTE)


if __name__ == "__main__":
    cli.run(main)
