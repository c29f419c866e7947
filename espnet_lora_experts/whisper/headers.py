"""Sizes of weights by their files' headers; no tensor is loaded.

Each reader gives ``{tensor's name: (shape, type)}``, or a Whisper's sizes under the
names of ``WhisperConfig``.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from safetensors import SafetensorError, safe_open

Shapes = dict[str, tuple[tuple[int, ...], str]]
CT2_TYPES = ("float32", "int8", "int16", "int32", "float16", "bfloat16")
CT2_LEAVES = ("weight", "bias", "gamma", "beta", "encodings")
"""Ends of the names of variables that are weights, not options."""
SAFETENSORS_TYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
GGML_TYPES = {0: "float32", 1: "float16"}
SIZES = {384: "tiny", 512: "base", 768: "small", 1024: "medium", 1280: "large"}
"""Whisper's sizes by their width."""


def read_safetensors(path: Path) -> tuple[Shapes, dict[str, str]]:
    """Tensors and metadata of a file.

    Raises:
        ValueError: It is missing, truncated or no safetensors file.
    """
    try:
        with safe_open(path, framework="np") as file:
            slices = {key: file.get_slice(key) for key in file.keys()}
            shapes: Shapes = {}
            for key, part in slices.items():
                kind = str(part.get_dtype())
                name = SAFETENSORS_TYPES.get(kind, kind)
                shapes[key] = tuple(part.get_shape()), name
            return shapes, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path} must be a whole safetensors file, but got: {error}; train, copy "
            "or download it again"
        ) from error


def read_ct2(path: Path) -> Shapes:
    """Variables of CTranslate2's ``model.bin``.

    Source: https://github.com/OpenNMT/CTranslate2, ``python/ctranslate2/specs``.

    Raises:
        ValueError: It is truncated, or no Whisper.
    """
    with path.open("rb") as file:
        try:
            _, spec, _, count = *_numbers(file, "I"), _name(file), *_numbers(file, "2I")
            if spec != "WhisperSpec":
                raise ValueError(f"specification {spec!r}")
            found = dict(_variable(file) for _ in range(count))
            return {k: v for k, v in found.items() if k.endswith(CT2_LEAVES)}
        except (struct.error, ValueError, OverflowError, OSError) as error:
            raise ValueError(
                f"{path} must be a whole Whisper of CTranslate2, but got: {error}"
            ) from error


def _variable(file: BinaryIO) -> tuple[str, tuple[tuple[int, ...], str]]:
    name = _name(file)
    (rank,) = _numbers(file, "B")
    shape = _numbers(file, f"{rank}I")
    kind, size = _numbers(file, "BI")
    file.seek(size, 1)
    return name, (shape, CT2_TYPES[kind] if kind < len(CT2_TYPES) else str(kind))


def _name(file: BinaryIO) -> str:
    (length,) = _numbers(file, "H")
    return file.read(length).decode().rstrip("\0")


def _numbers(file: BinaryIO, layout: str) -> tuple[int, ...]:
    layout = "<" + layout
    return struct.unpack(layout, file.read(struct.calcsize(layout)))


def ct2_sizes(shapes: Shapes) -> dict[str, Any]:
    """Sizes of a Whisper by CTranslate2's variables.

    Raises:
        ValueError: A variable that tells a size is missing.
    """
    try:
        vocab_size, d_model = shapes["decoder/embeddings/weight"][0]
        num_mel_bins = shapes["encoder/conv1/weight"][0][1]
    except (KeyError, IndexError, ValueError) as error:
        raise ValueError(f"variables must be a Whisper's, but lack {error}") from error
    layers = {
        f"{side}_layers": len(
            {key.split("/")[1] for key in shapes if key.startswith(f"{side}/layer_")}
            - {"layer_norm"}
        )
        for side in ("encoder", "decoder")
    }
    sizes = {"d_model": d_model, "num_mel_bins": num_mel_bins, "vocab_size": vocab_size}
    return {**layers, **sizes}


def read_ggml(path: Path) -> dict[str, Any]:
    """Sizes in the header of a whisper.cpp file.

    Raises:
        ValueError: It is none.
    """
    from espnet_lora_experts.whisper.convert_ggml import HPARAMS, MAGIC

    layout = f"<{1 + len(HPARAMS)}I"
    with path.open("rb") as file:
        header = file.read(struct.calcsize(layout))
    whole = len(header) == struct.calcsize(layout)
    magic, *sizes = struct.unpack(layout, header) if whole else [None]
    if magic != MAGIC:
        raise ValueError(f"{path} must be a whisper.cpp file, but starts otherwise")
    named = dict(zip(HPARAMS, sizes, strict=True))
    kind = named["ftype"]
    named["type"] = GGML_TYPES.get(kind, f"quantised ({kind})")
    return named


def size_of(config: Mapping[str, Any]) -> str | None:
    """Whisper's name for a model's sizes, None for one that is not OpenAI's.

    Example:
        >>> size_of({"d_model": 1280, "decoder_layers": 4, "num_mel_bins": 128})
        'large-v3-turbo'
    """
    name = SIZES.get(config["d_model"])
    if name == "large" and config.get("num_mel_bins") == 128:
        return "large-v3-turbo" if config.get("decoder_layers") == 4 else "large-v3"
    return name


def count(shapes: Shapes) -> int:
    """Numbers in all tensors."""
    return sum(math.prod(shape) for shape, _ in shapes.values())


def types(shapes: Shapes) -> str:
    """Types of the tensors."""
    return " ".join(sorted({kind for _, kind in shapes.values()}))
