"""Exports a trained system for other programs, and measures what they make of it.

    python -m espnet_lora_experts.bin.export exp/kd --to ctranslate2 out/kd-ct2
    python -m espnet_lora_experts.bin.export exp/mono --lang es --to ggml out/es.bin
    python -m espnet_lora_experts.bin.export exp/mole --to huggingface out/mole

A pooled LoRA, a distilled student, a fully fine-tuned Whisper, or one language (--lang)
of a system with experts becomes one Whisper: a checkpoint for transformers, a folder
for faster-whisper, or a file for whisper.cpp. Without --lang, a system with experts is
exported as its experts and its router, which Speech2Text.from_pretrained loads. With
--test_set, the word error rates of the system and of its export are printed.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from espnet_lora_experts.bin import cli
from espnet_lora_experts.inference import Speech2Text
from espnet_lora_experts.report.decodes import require
from espnet_lora_experts.report.kaldi import read_table
from espnet_lora_experts.report.results import Decoded, score
from espnet_lora_experts.whisper import languages
from espnet_lora_experts.whisper.audio import read_audio
from espnet_lora_experts.whisper.decoding import DecodeOptions
from espnet_lora_experts.whisper.export import (
    CTRANSLATE2,
    DTYPES,
    FORMATS,
    GGML,
    Options,
    engines,
    export,
)

SAMPLES, SEED = 1000, 0
"""Of the bootstrap, as bin.score has them."""


def get_parser() -> argparse.ArgumentParser:
    """Options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("dir", metavar="DIR", help="the system's folder, e.g. exp/kd")
    add("--to", required=True, choices=FORMATS, help="format")
    add("out", metavar="OUT", type=Path, help="folder to write; a file for ggml")
    add("--lang", help="one language only: that of an expert, for example es")
    add(
        "--dtype",
        choices=[*DTYPES],
        help="of the weights of huggingface and ggml; default: float32",
    )
    add(
        "--quantization",
        help="of the weights of ctranslate2: float32 (default), float16, bfloat16, "
        "int16, int8, int8_float32, int8_float16, int8_bfloat16",
    )
    add(
        "--with_backbone",
        action="store_true",
        help="put the backbone beside experts, so that the folder needs no hub",
    )
    add("--force", action="store_true", help="replace an earlier export at OUT")
    add(
        "--test_set",
        type=Path,
        metavar="FOLDER",
        help="measure on it: wav.scp, text, utt2lang, e.g. dump/raw/test",
    )
    return parser


def main(cmd: Sequence[str] | None = None) -> None:
    """Exports and, where a test set is given, measures."""
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s: %(message)s")
    args = get_parser().parse_args(cmd)
    names = ("to", "lang", "dtype", "quantization", "with_backbone")
    options = Options(**{name: getattr(args, name) for name in names})
    clips = read_clips(args) if args.test_set else None
    facts = export(args.dir, args.out, options, args.force)
    print(says(args, facts))
    if clips is not None:
        print("\n" + measure(args, facts, clips))
