"""What :mod:`.artefacts` tells of a Whisper, in whatever layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from espnet_lora_experts.whisper import headers
from espnet_lora_experts.whisper.description import read_json

CT2_WEIGHTS = "model.bin"
TOKENIZERS = ("tokenizer.json", "vocab.json")
SIZES = ("encoder_layers", "decoder_layers", "d_model", "num_mel_bins", "vocab_size")


def whisper(path: Path) -> dict[str, Any]:
    """A Whisper in Hugging Face's layout."""
    config = read_json(path / "config.json")
    if config.get("model_type") != "whisper":
        raise ValueError(
            f"{path} must be a Whisper, but its model_type is "
            f"{config.get('model_type')!r}"
        )
    whole = path / "model.safetensors"  # some have shards of another type besides
    files = [whole] if whole.is_file() else sorted(path.glob("model-*.safetensors"))
    shapes: headers.Shapes = {}
    for file in files:
        shapes |= headers.read_safetensors(file)[0]
    facts = {key: config.get(key) for key in SIZES}
    return _backbone("Hugging Face Whisper", path, facts, shapes, files)


def ct2(path: Path) -> dict[str, Any]:
    """A Whisper of CTranslate2, as faster-whisper has it."""
    shapes = headers.read_ct2(path / CT2_WEIGHTS)
    try:
        facts = headers.ct2_sizes(shapes)
    except ValueError as error:
        raise ValueError(f"{path / CT2_WEIGHTS}: {error}") from error
    return _backbone("CTranslate2 Whisper", path, facts, shapes, [path / CT2_WEIGHTS])


def _backbone(
    kind: str,
    path: Path,
    sizes: Mapping[str, Any],
    shapes: headers.Shapes,
    files: Sequence[Path],
) -> dict[str, Any]:
    return {
        "kind": kind,
        "size": headers.size_of(sizes),
        **sizes,
        "parameters": headers.count(shapes),
        "dtype": headers.types(shapes),
        "bytes": sum(file.stat().st_size for file in files),
        "tokenizer": any((path / name).is_file() for name in TOKENIZERS),
    }


def ggml(path: Path) -> dict[str, Any]:
    """A Whisper of whisper.cpp."""
    sizes = headers.read_ggml(path)
    return {
        "kind": "whisper.cpp Whisper",
        "size": headers.size_of(sizes),
        **{key: sizes[key] for key in SIZES},
        "dtype": sizes["type"],
        "bytes": path.stat().st_size,
    }
