"""Whether a Whisper's folder is what it says, told before anything is allocated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from espnet_lora_experts.whisper.convert import MAX_LAYERS
from espnet_lora_experts.whisper.description import read_json
from espnet_lora_experts.whisper.headers import Shapes, read_safetensors

MOST = 2**20
"""Largest size in a configuration; large's vocabulary is 51,866."""
LAYERS = ("encoder_layers", "decoder_layers")
SIZED = {
    "decoder.embed_tokens.weight": ("vocab_size", "d_model"),
    "encoder.embed_positions.weight": ("max_source_positions", "d_model"),
    "decoder.embed_positions.weight": ("max_target_positions", "d_model"),
    "encoder.conv1.weight": ("d_model", "num_mel_bins"),
    "encoder.layers.0.fc1.weight": ("encoder_ffn_dim", "d_model"),
    "decoder.layers.0.fc1.weight": ("decoder_ffn_dim", "d_model"),
}
"""Tensors that together have every size of a configuration."""


def check_whisper(folder: Path, weights: Sequence[Path]) -> None:
    """Compares a configuration with its weights' headers.

    Transformers makes the model of the configuration first, however large that says it
    is, and may load code or another arithmetic that it names.

    Args:
        folder: In Hugging Face's layout.
        weights: Its safetensors files.

    Raises:
        ValueError: A broken file, sizes that are none or not the weights', or a
            quantised Whisper; the message names the file.
    """
    path = folder / "config.json"
    config = read_json(path)
    if config.get("quantization_config") is not None:
        raise ValueError(
            f"{path} must be of float weights, but has a quantization_config; take the "
            "Whisper that it was made of"
        )
    for key in {key for keys in SIZED.values() for key in keys} | {*LAYERS}:
        _check_size(config.get(key), key, path)
    shapes: Shapes = {}
    for file in weights:
        shapes |= read_safetensors(file)[0]
    for name, keys in SIZED.items():
        found = shapes.get(f"model.{name}") or shapes.get(name)
        wanted = tuple(config[key] for key in keys)
        if found is None or found[0][:2] != wanted:
            raise ValueError(
                f"{path} must fit its weights, but says {wanted} for {name}, which is "
                f"{found[0] if found else 'missing'}"
            )


def _check_size(value: Any, key: str, path: Path) -> None:
    most = MAX_LAYERS if key in LAYERS else MOST
    if type(value) is not int or not 1 <= value <= most:
        raise ValueError(f"{key} in {path} must be 1 to {most}, but got {value!r:.99}")
