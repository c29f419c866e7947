"""Compares this package with its peers, side by side on the same work.

    .venv/bin/python local/benchmark.py                        # on the CPU
    .venv/bin/python local/benchmark.py --rows decode_hf --json

Each row runs ours and the peer alternately on the same clips, in the same precision
and with models of one size, after a warm-up, and prints the median of the rounds'
ratios with their extremes. The clips are the mini recipe's; they are prepared on first
use. The decode_fw rows need faster-whisper (pip install -e .[benchmark]) and a student
whose training was padded in part, since faster-whisper always pads. After the demo:

    cd egs2/mini_multilingual/asr1
    ./run.sh --stage 8 --stop_stage 8 --tag padded --train_kd_logits_only false \
        --train_args "--max_epoch 3" \
        --distill_args "--model_conf pad_to_30s_prob=0.3 --batch_bins 270000"
    cd - && .venv/bin/python local/benchmark.py --rows decode_fw decode_fw_batched \
        decode_fw_beam --student egs2/mini_multilingual/asr1/exp/kd_padded
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "4000")

import torch

with redirect_stdout(sys.stderr):  # ESPnet prints when it is imported
    from bench import decoding, faster, training  # noqa: F401  (they register rows)
    from bench.harness import ROWS, compete, line, table
    from bench.world import World


def get_parser() -> argparse.ArgumentParser:
    """Options."""
    names = ", ".join(ROWS)
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=f"rows: {names}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--rows", nargs="+", choices=list(ROWS), metavar="ROW", help="default: all")
    add("--device", default="cpu", choices=["cpu", "cuda"])
    add("--precision", default="float32", choices=["float32", "bfloat16"])
    add("--backbone", default="openai/whisper-tiny")
    add("--rounds", type=int, default=5)
    add("--threads", type=int, help="of the CPU; default: torch's")
    add("--download_dir", type=Path, help="holds the recipe's packages")
    add("--student", type=Path, help="folder of a student, for the decode_fw rows")
    add("--json", action="store_true", help="print JSON, not a table")
    return parser


def main() -> None:
    """Runs the rows."""
    parser = get_parser()
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    if args.threads:
        torch.set_num_threads(args.threads)
    autocast = "none" if args.precision == "float32" else args.precision
    world = World(args.backbone, args.device, autocast)
    world.student = args.student
    if args.download_dir:
        world.download_dir = args.download_dir.resolve()
    free = [name for name, row in ROWS.items() if args.student or not row.student]
    names = args.rows or free
    if lacking := [name for name in names if name not in free]:
        parser.error(f"{', '.join(lacking)} need --student; see --help")
    results = run(names, world, args.rounds)
    machine = f"{args.device}, {args.precision}, {torch.get_num_threads()} threads"
    if args.json:
        print(json.dumps({"machine": machine, "rows": results}, indent=1))
    else:
        print(f"{machine}, {args.backbone}, {args.rounds} rounds\n\n{table(results)}")
    done = {result["row"] for result in results}
    if failed := [name for name in names if name not in done]:
        sys.exit(f"failed, see above: {' '.join(failed)}")


def run(names: Sequence[str], world: World, rounds: int) -> list[dict[str, Any]]:
    """Results of the rows, each shown once it is there; one that fails is left out."""
    results = []
    for name in names:
        with redirect_stdout(sys.stderr):
            try:
                result = compete(ROWS[name], ROWS[name].make(world), rounds)
            except Exception:  # an hour of other rows is not lost with it
                traceback.print_exc()
                continue
            print(line(result), flush=True)
        results.append(result)
    return results


if __name__ == "__main__":
    main()
