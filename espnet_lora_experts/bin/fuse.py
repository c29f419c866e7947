"""Merges trained experts into one LoRA without any training.

    python -m espnet_lora_experts.bin.fuse --input exp/mono --output exp/merged_ties \
        --combination_type ties_svd --r 64

The result is a system like any other: decode it with --systems "... merged_ties". The
combination types are those of PEFT's ``add_weighted_adapter``.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import torch

from espnet_lora_experts.bin import cli
from espnet_lora_experts.experts.bank import lora_config
from espnet_lora_experts.experts.fusion import merge
from espnet_lora_experts.whisper.backbone import Backbone
from espnet_lora_experts.whisper.folder import load_system, save_system
from espnet_lora_experts.whisper.systems import Single, deployed_parameters

MERGED = "merged"


def get_parser() -> argparse.ArgumentParser:
    """Options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--input", required=True, type=Path, help="folder of a system with experts")
    add("--output", required=True, type=Path, help="folder of the merged system")
    add(
        "--combination_type",
        default="svd",
        help="linear (mean of factors), cat (exact mean, rank adds up), svd, ties, "
        "ties_svd, dare_linear, dare_linear_svd",
    )
    add("--r", type=int, default=64, help="rank of the result of svd and *_svd")
    add("--density", type=float, default=0.5, help="share that TIES and DARE keep")
    add("--weights", help='of the experts, e.g. "es=0.7 ro=0.3"; default: all equal')
    add("--seed", type=int, default=0, help="of what DARE drops")
    return parser


def main(cmd=None) -> None:
    """Merges and saves."""
    cli.show_log()
    args = get_parser().parse_args(cmd)
    torch.manual_seed(args.seed)
    backbone, system, what = load_system(args.input)
    weights = read_weights(args.weights, list(what["experts"]))
    merge_experts(backbone, weights, args.combination_type, args.r, args.density)
    merged = Single(system.languages, MERGED)
    deployed = deployed_parameters(backbone, merged)
    facts = {"steps": 0, "trained_params": 0, "deployed_params": deployed}
    save_system(args.output, backbone, merged, facts)
    logging.info(f"{args.combination_type} of {weights} is in {args.output}")


def read_weights(text: str | None, experts: list[str]) -> dict[str, float]:
    """Weight of each expert.

    Raises:
        ValueError: An unknown expert, no expert at all, or a weight that is no number.

    Example:
        >>> read_weights(None, ["es", "ru"])
        {'es': 0.5, 'ru': 0.5}
        >>> read_weights("ru=0.25", ["es", "ru"])
        {'ru': 0.25}
    """
    pairs = [pair.partition("=") for pair in (text or "").split()]
    try:
        weights = {name: float(weight) for name, _, weight in pairs}
    except ValueError:
        raise ValueError(f"--weights must be numbers, but got {text!r}") from None
    if not experts or set(weights) - set(experts):
        raise ValueError(f"--weights must be of {experts}, but got {text!r}")
    return weights or dict.fromkeys(experts, 1 / len(experts))


@torch.no_grad()
def merge_experts(
    backbone: Backbone,
    weights: dict[str, float],
    combination_type: str,
    r: int,
    density: float,
) -> None:
    """Adds the expert :data:`MERGED` to the backbone's bank."""
    bank = backbone.bank
    merged = {}
    for key, layer in bank.layers.items():
        held = {n: pair for n in weights if (pair := layer.factors(n)) is not None}
        weight_N = torch.tensor([weights[name] for name in held])
        pairs = list(held.values())
        merged[key] = merge(pairs, weight_N, combination_type, r, density)
    ranks = {A_RD.shape[0] for A_RD, _ in merged.values()}
    if len(ranks) != 1:
        raise ValueError(f"experts must touch the same layers, but ranks are {ranks}")
    targets = bank.configs[next(iter(weights))].target_modules
    bank.add(MERGED, lora_config(ranks.pop(), target_modules=sorted(targets or ())))
    for key, (A_RD, B_OR) in merged.items():
        bank.layers[key].set_factors(MERGED, A_RD, B_OR)


if __name__ == "__main__":
    cli.run(main)
