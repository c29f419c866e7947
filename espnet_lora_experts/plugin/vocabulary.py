"""The token list that stock ``asr.sh`` asks for: all of Whisper's tokens."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from espnet_lora_experts import atomic
from espnet_lora_experts.whisper import hub
from espnet_lora_experts.whisper.description import read_json
from espnet_lora_experts.whisper.prompt import Prompter


def export_vocabulary(
    output: str,
    model_name_or_path: str,
    log_level: str = "INFO",
    add_symbol: Sequence[str] = (),
) -> None:
    """Writes one token a line: line n is id n, special tokens included.

    ESPnet's own export, which this stands for, leaves out the special tokens, and with
    them the prompt and the end.

    Args:
        output: File to write.
        model_name_or_path: The backbone: hub id or folder.
        log_level: Of :mod:`logging`.
        add_symbol: Must be empty: ids are Whisper's.

    Raises:
        ValueError: Symbols to add.
    """
    logging.basicConfig(level=log_level)
    if add_symbol:
        raise ValueError(
            "add_symbol must be empty, as the ids are Whisper's, but got "
            f"{list(add_symbol)}"
        )
    folder = hub.resolve(model_name_or_path)
    size = read_json(folder / "config.json")["vocab_size"]
    path = Path(output)
    tokens = Prompter(folder).token_list(size)
    atomic.write_text(path, "\n".join(tokens) + "\n")
    logging.info(f"{len(tokens)} tokens in {path}")
