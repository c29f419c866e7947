"""Writer of whisper.cpp's ggml files, the inverse of :mod:`..convert_ggml`.

The file, little-endian: magic, 11 sizes, mel filters, vocabulary without the special
tokens, which whisper.cpp knows by their ids, then tensors. Source:
https://github.com/ggml-org/whisper.cpp, ``models/convert-pt-to-ggml.py``.

Files in float32 are for readers like ours: whisper.cpp itself stops at their first
convolution (https://github.com/ggml-org/whisper.cpp/issues/2557).
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor
from transformers import WhisperConfig
from transformers.convert_slow_tokenizer import bytes_to_unicode

from espnet_lora_experts.whisper.convert_ggml import DTYPES, HPARAMS, MAGIC, RENAMED
from espnet_lora_experts.whisper.export.folded import Folded
from espnet_lora_experts.whisper.features import LogMel
from espnet_lora_experts.whisper.prompt import Prompter

logger = logging.getLogger(__name__)

F32, F16 = sorted(DTYPES)
TYPES = {torch.float32: F32, torch.float16: F16}
KEPT_F32 = "positional_embedding"
"""Ends the names of matrices that whisper.cpp wants in float32, like all vectors."""
OPENAI = {hf: openai for openai, hf in RENAMED.items()}
FINAL_NORM = {"encoder": "ln_post", "decoder": "ln"}


def write(path: Path, folded: Folded, dtype: torch.dtype = torch.float16) -> None:
    """Writes the file.

    Args:
        path: Where to.
        folded: The Whisper.
        dtype: Of the matrices, float32 or float16.
    """
    ftype = TYPES[dtype]
    if ftype == F32:
        logger.warning(
            "whisper.cpp itself runs no float32; give --dtype float16 for it"
        )
    with path.open("wb") as stream:
        stream.write(_sizes(folded.config, ftype))
        stream.write(_mel_filters(folded.config.num_mel_bins))
        stream.writelines(_vocabulary(folded.prompter))
        for name, tensor in folded.state.items():
            _write_tensor(stream, openai_name(name), tensor, ftype)


def openai_name(name: str) -> str:
    """Translates a tensor's name from Hugging Face to openai/whisper.

    Example:
        >>> openai_name("model.decoder.layers.0.encoder_attn.q_proj.weight")
        'decoder.blocks.0.cross_attn.query.weight'
    """
    name = name.removeprefix("model.").replace("fc1", "mlp.0").replace("fc2", "mlp.2")
    side, _, rest = name.partition(".")
    if rest.startswith("layer_norm."):
        return f"{side}.{rest.replace('layer_norm', FINAL_NORM[side])}"
    if rest in OPENAI:
        return f"{side}.{OPENAI[rest]}"
    return ".".join([side, *(OPENAI.get(part, part) for part in rest.split("."))])


def _sizes(config: WhisperConfig, ftype: int) -> bytes:
    sizes = config.to_dict() | {"decoder_d_model": config.d_model, "ftype": ftype}
    values = [sizes[name] for name in HPARAMS]
    return struct.pack(f"<{1 + len(values)}I", MAGIC, *values)


def _mel_filters(n_mels: int) -> bytes:
    filters_MF = LogMel(n_mels).filters_FM.T.contiguous()
    return struct.pack("<2I", *filters_MF.shape) + filters_MF.numpy().tobytes()


def _vocabulary(prompter: Prompter) -> Iterator[bytes]:
    """The text tokens' bytes in the order of their ids, which are below the end's."""
    byte_of = {letter: byte for byte, letter in bytes_to_unicode().items()}
    texts = sorted((i, text) for text, i in prompter.vocab.items() if i < prompter.eot)
    yield struct.pack("<I", len(texts))
    for _, text in texts:
        data = bytes(byte_of[letter] for letter in text)
        yield struct.pack("<I", len(data)) + data


def _write_tensor(stream: BinaryIO, name: str, tensor: Tensor, ftype: int) -> None:
    if name.endswith(KEPT_F32) or tensor.dim() < 2:
        ftype = F32
    is_conv_bias = ".conv" in name and name.endswith("bias")
    shape = (len(tensor), 1) if is_conv_bias else tuple(tensor.shape)
    stream.write(struct.pack("<3I", len(shape), len(name), ftype))
    stream.write(struct.pack(f"<{len(shape)}I", *shape[::-1]) + name.encode())
    stream.write(tensor.numpy().astype(DTYPES[ftype]).tobytes())
