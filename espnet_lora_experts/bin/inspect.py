"""Tells what a model's folder or file is, by its headers: weights are not loaded.

    espnet-lora-experts inspect exp/kd          # a system: languages, experts, facts
    espnet-lora-experts inspect exp             # a table of all systems there
    espnet-lora-experts inspect exp/kd --json   # for programs

Known are our systems and folders of them, PEFT adapters, Whispers in the layouts of
Hugging Face, CTranslate2 and whisper.cpp, and ESPnet's trainings, checkpoints and
packed models. --hash reads the weights of a Whisper for the hash by which systems and
experts name it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from espnet_lora_experts.bin import cli
from espnet_lora_experts.whisper import artefacts

BACKBONES = ("Hugging Face", "CTranslate2", "whisper.cpp")


def get_parser() -> argparse.ArgumentParser:
    """Options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("path", type=Path, help="folder or file")
    parser.add_argument("--hash", action="store_true", help="of a Whisper's weights")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def main(cmd=None) -> None:
    """Describes and prints."""
    args = get_parser().parse_args(cmd)
    facts = artefacts.describe(args.path)
    if args.hash:
        facts["sha256"] = weights_hash(args.path, facts["kind"])
    facts = {"path": str(args.path), **facts}
    text = json.dumps(facts, indent=2, ensure_ascii=False) if args.json else page(facts)
    print(text)


def weights_hash(path: Path, kind: str) -> str:
    """The hash of a Whisper's weights, the same in whatever layout.

    Raises:
        ValueError: The artefact is no Whisper by itself.
    """
    if not kind.startswith(BACKBONES):
        raise ValueError(f"--hash must be of a Whisper, but {path} is a {kind}")
    from espnet_lora_experts.whisper.backbone import Backbone

    return Backbone.from_pretrained(str(path)).sha256


def page(facts: Mapping[str, Any]) -> str:
    """Facts one below the other, then the tables."""
    tables = {key: value for key, value in facts.items() if _is_table(value)}
    rows = [
        (key, cell(key, value))
        for key, value in facts.items()
        if key not in tables and value not in (None, [], {})
    ]
    parts = [align(rows)]
    for title, table in tables.items():
        columns = [c for c in table[0] if any(_given(row.get(c)) for row in table)]
        body = [tuple(cell(c, row.get(c)) for c in columns) for row in table]
        parts.append(f"{title}\n" + align([tuple(columns), *body]))
    return "\n\n".join(parts)


def cell(name: str, value: object) -> str:
    """A value for people, by the name of its column.

    Example:
        >>> cell("bytes", 3 * 2**20), cell("parameters", 4325376), cell("wer", 35.719)
        ('3.0 MiB', '4,325,376', '35.7')
    """
    if not _given(value):
        return "-"
    if name == "bytes" and isinstance(value, int):
        return f"{value / 2**20:.1f} MiB"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.1f}" if value >= 1 else f"{value:.2g}"
    if isinstance(value, dict):
        return " ".join(f"{key}={item}" for key, item in value.items())
    if isinstance(value, list):
        return " ".join(map(str, value))
    return str(value)


def align(rows: Sequence[tuple[str, ...]]) -> str:
    """Rows with equal columns, two spaces between."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(text.ljust(n) for text, n in zip(row, widths, strict=True))
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)


def _given(value: object) -> bool:
    return value is not None and value != [] and value != {}


def _is_table(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


if __name__ == "__main__":
    cli.run(main)
