"""Stage 3: fetches the backbone, says what it is, and writes ESPnet's token list.

    python -m espnet_lora_experts.bin.backbone --backbone openai/whisper-tiny \
        --token_list data/token_list/tokens.txt --langs "es ru" --expdir exp
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from espnet_lora_experts import atomic
from espnet_lora_experts.bin import cli
from espnet_lora_experts.whisper import hub, languages
from espnet_lora_experts.whisper.backbone import Backbone
from espnet_lora_experts.whisper.description import write_description
from espnet_lora_experts.whisper.prompt import Prompter


def get_parser() -> argparse.ArgumentParser:
    """Options of this stage."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", required=True, help="hub id or folder")
    parser.add_argument("--download_dir", type=Path, help="where packages may lie")
    parser.add_argument("--token_list", required=True, type=Path, help="to write")
    parser.add_argument("--langs", required=True, help="target languages")
    parser.add_argument("--expdir", default="exp", type=Path)
    return parser


def main(cmd=None) -> None:
    """Fetches, describes and writes."""
    cli.show_log()
    args = get_parser().parse_args(cmd)
    folder = hub.resolve(args.backbone, args.download_dir)
    backbone = Backbone.from_pretrained(args.backbone)
    prompter = Prompter(folder)
    config = backbone.config
    logging.info(
        f"{args.backbone}: {config.encoder_layers} + {config.decoder_layers} layers, "
        f"width {config.d_model}, {config.num_mel_bins} mels, "
        f"{config.vocab_size} tokens, sha256 {backbone.sha256[:12]}"
    )
    for code in args.langs.split():
        token = prompter.tokens([prompter.language(code)])[0]
        logging.info(f"{code}: {languages.get(code).name}, token {token}")
    write_token_list(args.token_list, prompter, config.vocab_size)
    write_vanilla(args.expdir / "vanilla", backbone, args.langs.split())


def write_token_list(path: Path, prompter: Prompter, vocab_size: int) -> None:
    """One token a line; ids that the tokenizer has no string for get a placeholder."""
    tokens = prompter.token_list(vocab_size)
    atomic.write_text(path, "\n".join(tokens) + "\n")


def write_vanilla(folder: Path, backbone: Backbone, langs: list[str]) -> None:
    """Describes Whisper as it came, as the first system of the results."""
    what = {
        "type": "vanilla",
        "languages": langs,
        "backbone": {"name": backbone.name, "sha256": backbone.sha256},
        "steps": 0,
        "trained_params": 0,
        "deployed_params": sum(p.numel() for p in backbone.hf.parameters()),
    }
    write_description(folder, what)


if __name__ == "__main__":
    cli.run(main)
