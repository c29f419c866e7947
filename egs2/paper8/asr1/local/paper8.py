#!/usr/bin/env python3
"""The paper's corpora: AISHELL zh, LibriSpeech en, all other languages Common Voice."""

import logging
from pathlib import Path

import aishell
import commonvoice
import corpus
import espnet_data
import librispeech

from espnet_lora_experts.bin import cli

LANGS = "zh en ko ja id ru vi yue"


def get_parser():
    """Options of the three corpora."""
    parser = corpus.get_parser(__doc__)
    parser.set_defaults(langs=LANGS)
    add = parser.add_argument
    add("--aishell", type=Path, default=Path("downloads"), help="has data_aishell")
    add("--librispeech", type=Path, default=Path("downloads"), help="has LibriSpeech")
    for split, parts in librispeech.PARTS.items():
        chosen = "test-clean" if split == "test" else " ".join(parts)
        add(f"--librispeech_{split}", default=chosen, help="its parts")
    commonvoice.add_options(parser)
    espnet_data.add_option(parser)
    return parser


def parts_of(args) -> dict[str, tuple[str, ...]]:
    """LibriSpeech's parts of each split.

    Raises:
        ValueError: A part is unknown, or of another split.
    """
    parts = {}
    for split, known in librispeech.PARTS.items():
        parts[split] = tuple(getattr(args, f"librispeech_{split}").split())
        if not parts[split] or not set(parts[split]) <= set(known):
            raise ValueError(
                f"--librispeech_{split} must name parts of {' '.join(known)}, but got"
                f" {' '.join(parts[split])!r}"
            )
    return parts


def main(cmd: list[str] | None = None) -> None:
    """Write data/{train,dev,test}."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    args = get_parser().parse_args(cmd)
    espnet = espnet_data.root_of(args.espnet_root)
    read = {
        "zh": aishell.reader(args.aishell, espnet),
        "en": librispeech.reader(args.librispeech, parts_of(args), espnet),
    }
    other = commonvoice.reader(args)
    langs = corpus.parse_langs(args.langs)
    corpus.prepare(args, langs, lambda lang, split: read.get(lang, other)(lang, split))


if __name__ == "__main__":
    cli.run(main)
