"""How time and memory grow: with languages, rank, clips, Whisper, lists, processes.

    .venv/bin/python local/scale.py                      # all six tables
    .venv/bin/python local/scale.py --tables rank length

Training steps on real clips (the mini recipe's, prepared on first use), medians of some
rounds; sizes of Whisper that are not at hand are counted from their published shapes.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "4000")

import numpy as np
import torch
from bench import lists
from bench.harness import peak_memory, timed
from bench.ranks import epoch_seconds
from bench.training import needed_operations, steps
from bench.world import LANGS, Clip, World, seconds
from transformers import WhisperConfig, WhisperForConditionalGeneration

from espnet_lora_experts.experts.bank import ExpertBank, lora_config
from espnet_lora_experts.whisper import languages

MIB = 2**20
SIZES = {  # width, layers, heads, mel bins, vocabulary
    "tiny": (384, 4, 6, 80, 51865),
    "base": (512, 6, 8, 80, 51865),
    "small": (768, 12, 12, 80, 51865),
    "medium": (1024, 24, 16, 80, 51865),
    "large-v3": (1280, 32, 20, 128, 51866),
}
RANKED = {"eight experts": "train_expert.yaml", "pooled LoRA": "train_multi.yaml"}
"""What the table of processes trains."""
Table = Callable[[World, int], list[list[str]]]
TABLES: dict[str, Table] = {}


def table(make: Table) -> Table:
    """Registers a table by its function's name."""
    TABLES[make.__name__] = make
    return make


def measure(model, batches, rounds: int) -> tuple[float, float]:
    """Seconds of an epoch over the batches (median), peak MiB beyond the model's."""
    work = steps(model, batches)
    peak = peak_memory(work)
    return statistics.median(timed(work) for _ in range(rounds)), peak


@table
def languages_in_the_bank(world: World, rounds: int) -> list[list[str]]:
    """Experts of N languages train in one job; batches of up to eight of them."""
    others = sorted({x.code for x in languages.WHISPER} - set(LANGS))
    rows = [["languages", "step s", "peak MiB", "trained Mi", "of it touched a step"]]
    for count in (1, 2, 8, 32, 100):
        codes = [*LANGS, *others][:count]
        clips = world.pick(48, LANGS[:count])
        batches = world.batches(clips)
        model = world.model("lora_expert", codes)
        spent, peak = measure(model, batches, rounds)
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        touched = trained * min(count, len(LANGS)) / count
        numbers = [spent / len(batches), peak, trained / MIB, touched / MIB]
        rows.append([str(count), *map(short, numbers)])
    return rows


@table
def rank(world: World, rounds: int) -> list[list[str]]:
    """Experts of eight languages."""
    rows = [["rank", "step s", "peak MiB", "expert Mi"]]
    batches = world.batches(world.pick(48))
    for r in (8, 32, 64, 128):
        model = world.model("lora_expert", r=r)
        spent, peak = measure(model, batches, rounds)
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        numbers = [spent / len(batches), peak, trained / len(LANGS) / MIB]
        rows.append([str(r), *map(short, numbers)])
    return rows


@table
def length(world: World, rounds: int) -> list[list[str]]:
    """As many seconds of speech in clips of each length: clips one behind the other."""
    rows = [["clips", "audio s/s", "peak MiB", "needed GFLOP/s of audio"]]
    for each in (2, 5, 10, 20, 29):
        clips = joined(world, each, total=116)
        batches = world.batches(clips)
        model = world.model("lora_expert", ["es"])
        spent, peak = measure(model, batches, rounds)
        needed = sum(needed_operations(model, batch, rank=32) for batch in batches)
        numbers = [seconds(clips) / spent, peak, needed / seconds(clips) / 1e9]
        rows.append([f"{len(clips)} of {each} s", *map(short, numbers)])
    return rows


def joined(world: World, each: int, total: int) -> list[Clip]:
    """Clips of ``each`` seconds from Spanish ones, their texts with them."""
    own = [clip for clip in world.clips if clip.lang == "es"]
    clips: list[Clip] = []
    speech, texts, at = np.zeros(0, np.float32), [], 0
    while len(clips) < total // each:
        clip = own[at % len(own)]
        at += 1
        speech, texts = np.concatenate([speech, clip.speech]), [*texts, clip.text]
        if len(speech) >= each * 16_000:
            text = " ".join(texts)[: each * 12]  # about the corpus' letters a second
            clips.append(Clip(f"{at}", "es", text, speech[: each * 16_000]))
            speech, texts = np.zeros(0, np.float32), []
    return clips


@table
def size(world: World, rounds: int) -> list[list[str]]:
    """Whisper's sizes, rank 32, float32; counted on the meta device but for the speed.

    Memory is that of weights: Whisper's, and of the experts that train with their
    gradients and Adam's two moments.
    """
    rows = [
        ["Whisper", "Mi", "expert Mi", "Whisper MiB", "8 experts training MiB"]
        + ["100 experts training MiB", "forward GFLOP/s of audio", "audio s/s"]
    ]
    clips = world.pick(24, ["es"])
    for name, shape in SIZES.items():
        whisper, expert = counted(shape)
        memory = [4 * n / MIB for n in (whisper, 4 * 8 * expert, 4 * 100 * expert)]
        numbers = [whisper / MIB, expert / MIB, *memory, forward(shape)]
        speed = trained(world, name, clips, rounds)
        rows.append([name, *map(short, numbers), speed])
    return rows


def counted(shape: Sequence[int]) -> tuple[int, int]:
    """Parameters of a Whisper and of one expert of rank 32."""
    width, layers, heads, mels, vocabulary = shape
    config = WhisperConfig(
        d_model=width,
        encoder_layers=layers,
        decoder_layers=layers,
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=4 * width,
        decoder_ffn_dim=4 * width,
        num_mel_bins=mels,
        vocab_size=vocabulary,
    )
    with torch.device("meta"):
        model = WhisperForConditionalGeneration(config)
        whisper = sum(p.numel() for p in model.parameters())
        bank = ExpertBank(model)
        bank.add("es", lora_config(32))
        return whisper, sum(p.numel() for _, p in bank.parameters_of("es"))


def forward(shape: Sequence[int]) -> float:
    """GFLOP of a forward pass for a second of speech (50 positions, 5 tokens)."""
    width, layers, _, mels, vocabulary = shape
    positions, tokens = 50, 5
    encoder = 2 * 12 * width**2 * positions * layers
    decoder = 2 * (14 * tokens + 2 * positions) * width**2 * layers
    convolutions = 2 * 3 * (2 * mels + width) * width * positions
    return (encoder + decoder + convolutions + 2 * vocabulary * width * tokens) / 1e9


def trained(world: World, name: str, clips: Sequence[Clip], rounds: int) -> str:
    """Audio seconds a second of training one expert, where the weights are at hand."""
    other = World(f"openai/whisper-{name}", world.device, world.autocast)
    other.folder, other.download_dir = world.folder, world.download_dir
    try:
        model = other.model("lora_expert", ["es"])
    except FileNotFoundError:
        return "-"
    return short(seconds(clips) / measure(model, other.batches(clips), rounds)[0])


@table
def listed_utterances(world: World, rounds: int) -> list[list[str]]:
    """Synthetic lists: CPU seconds to prepare them, bytes in training for each.

    Stage 2 without its audio; stage 4's check; ESPnet's tables and the first epoch's
    batches. Memory of the process while it builds them, and afterwards.
    """
    rows = [["utterances", "stage 2 s", "stage 4 s", "batches s"]]
    rows[0] += ["bytes each, peak", "bytes each, held", "ESPnet's tables alone"]
    for count in (100_000, 1_000_000):
        found = lists.measure(world, count)
        times = [found[name] for name in ("format", "check", "batches")]
        sizes = [found[name] / count for name in ("peak", "held", "espnet")]
        rows.append([f"{count:,}", *map(short, [*times, *sizes])])
    return rows


@table
def processes(world: World, rounds: int) -> list[list[str]]:
    """By ESPnet's trainer, one thread each, the same batches of eight languages."""
    clips = world.pick(160)
    rows = [["training", "processes", "audio s/s", "ratio [spread]"]]
    for name, config in RANKED.items():
        spent: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(rounds):
            for n, times in spent.items():
                times += epoch_seconds(world, config, clips, n, epochs=2)
        for n, times in spent.items():
            ratios = [a / b for a, b in zip(spent[1], times, strict=True)]
            low, middle, high = min(ratios), statistics.median(ratios), max(ratios)
            speed = seconds(clips) / statistics.median(times)
            spread = f"{middle:.2f} [{low:.2f}, {high:.2f}]" if n > 1 else "1"
            rows.append([name, str(n), short(speed), spread])
    return rows


def short(number: float) -> str:
    """Two digits behind the point below 10, none above."""
    return f"{number:.2f}" if abs(number) < 10 else f"{number:,.0f}"


def markdown(rows: list[list[str]]) -> str:
    """Rows as a table, the first its head."""
    rule = "|" + "---|" * len(rows[0])
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], rule, *lines[1:]])


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--tables", nargs="+", choices=list(TABLES), default=list(TABLES))
    add("--device", default="cpu", choices=["cpu", "cuda"])
    add("--precision", default="float32", choices=["float32", "bfloat16"])
    add("--rounds", type=int, default=3)
    add("--download_dir", type=Path, help="holds the recipe's packages")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    autocast = "none" if args.precision == "float32" else args.precision
    world = World("openai/whisper-tiny", args.device, autocast)
    if args.download_dir:
        world.download_dir = args.download_dir.resolve()
    threads = torch.get_num_threads()
    print(f"{args.device}, {args.precision}, {threads} threads, {args.rounds} rounds")
    for name in args.tables:
        print(f"\n{name}: {TABLES[name].__doc__.splitlines()[0]}\n", flush=True)
        print(markdown(TABLES[name](world, args.rounds)), flush=True)


if __name__ == "__main__":
    main()
