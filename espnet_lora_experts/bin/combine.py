"""Puts experts trained one by one together as one system, and describes two_pass.

    python -m espnet_lora_experts.bin.combine --inputs "exp/mono_es exp/mono_ru" \
        --output exp/mono --two_pass exp/two_pass
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from espnet_lora_experts.bin import cli
from espnet_lora_experts.whisper.description import (
    read_description,
    write_description,
)


def get_parser() -> argparse.ArgumentParser:
    """Options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", required=True, help="folders of trained experts")
    parser.add_argument("--output", required=True, type=Path, help="the system of all")
    parser.add_argument("--two_pass", type=Path, help="folder to describe two_pass in")
    return parser


def main(cmd=None) -> None:
    """Writes the descriptions; experts stay where they are."""
    args = get_parser().parse_args(cmd)
    folders = [Path(folder) for folder in args.inputs.split()]
    what = read_description(folders[0])
    if folders != [args.output]:
        what = combine({folder: read_description(folder) for folder in folders}, args)
        write_description(args.output, what)
        from espnet_lora_experts.whisper.card import update_cards  # seconds

        update_cards(args.output)
    if args.two_pass:
        write_description(args.two_pass, {**what, "type": "two_pass", "experts": {}})


def combine(parts: dict[Path, dict[str, Any]], args) -> dict[str, Any]:
    """One description of several experts; paths relative to the output.

    Raises:
        ValueError: The experts are of different backbones, two are of one language,
            or an input holds something else.
    """
    hashes = {what["backbone"]["sha256"] for what in parts.values()}
    if len(hashes) != 1:
        raise ValueError(f"experts must be of one backbone, but got {sorted(hashes)}")
    experts: dict[str, str] = {}
    for folder, what in parts.items():
        if what["type"] != "experts":
            raise ValueError(
                f"{folder} must hold experts of languages, but is a {what['type']}"
            )
        for name, path in what["experts"].items():
            if name in experts:
                raise ValueError(
                    f"experts must be of different languages, but {folder} and "
                    f"{args.output / experts[name]} are both of {name!r}"
                )
            experts[name] = os.path.relpath(folder / path, args.output)
    first = next(iter(parts.values()))
    trained = sum(what["trained_params"] for what in parts.values())
    base = first["deployed_params"] - first["trained_params"]
    return {
        **first,
        "languages": list(experts),
        "experts": experts,
        "steps": sum(what["steps"] for what in parts.values()),
        "trained_params": trained,
        "deployed_params": base + trained,
    }


if __name__ == "__main__":
    cli.run(main)
