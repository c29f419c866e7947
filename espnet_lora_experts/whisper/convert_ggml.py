"""Reader of whisper.cpp's ggml files (f32 and f16).

The file, little-endian: magic, 11 sizes, mel filters, vocabulary, then tensors until
the end. Tensor names are those of openai/whisper; the dimensions are stored reversed.
Source: https://github.com/ggml-org/whisper.cpp, ``models/convert-pt-to-ggml.py``.
"""

import torch

from espnet_lora_experts.whisper.convert import Cursor, Source, StateDict

MAGIC = 0x67676D6C
DTYPES = {0: "<f4", 1: "<f2"}
HPARAMS = (
    "vocab_size",
    "max_source_positions",
    "d_model",
    "encoder_attention_heads",
    "encoder_layers",
    "max_target_positions",
    "decoder_d_model",
    "decoder_attention_heads",
    "decoder_layers",
    "num_mel_bins",
    "ftype",
)
RENAMED = {
    "blocks": "layers",
    "attn": "self_attn",
    "attn_ln": "self_attn_layer_norm",
    "cross_attn": "encoder_attn",
    "cross_attn_ln": "encoder_attn_layer_norm",
    "query": "q_proj",
    "key": "k_proj",
    "value": "v_proj",
    "out": "out_proj",
    "mlp_ln": "final_layer_norm",
    "ln": "layer_norm",
    "ln_post": "layer_norm",
    "token_embedding": "embed_tokens",
    "positional_embedding": "embed_positions.weight",
}


def ggml_to_state_dict(source: Source) -> tuple[dict[str, int], StateDict]:
    """Read a whisper.cpp file.

    Args:
        source: Path of the file, or its bytes.

    Returns:
        The header's sizes under the names of ``WhisperConfig`` (and ``ftype``), and the
        tensors in float32 under Hugging Face's names, without the tied ``proj_out``.

    Raises:
        ValueError: If the file is no ggml Whisper, is quantised, or claims more bytes
            than it has.
    """
    cursor = Cursor(source)
    hparams = _read_hparams(cursor)
    _skip_mel_filters(cursor)
    _skip_vocabulary(cursor)
    state: StateDict = {}
    while not cursor.done:
        name, tensor = _read_tensor(cursor)
        state[hf_name(name)] = tensor
    return hparams, state


def hf_name(name: str) -> str:
    """Translate a tensor's name from openai/whisper to Hugging Face.

    Example:
        >>> hf_name("decoder.blocks.0.cross_attn.query.weight")
        'model.decoder.layers.0.encoder_attn.q_proj.weight'
    """
    parts = name.replace("mlp.0.", "fc1.").replace("mlp.2.", "fc2.").split(".")
    return ".".join(["model", *(RENAMED.get(part, part) for part in parts)])


def _read_hparams(cursor: Cursor) -> dict[str, int]:
    (magic,) = cursor.numbers("I", "ggml magic")
    if magic != MAGIC:
        raise ValueError(
            f"ggml magic must be one of the known, but got {magic:#x}; "
            f"known: {MAGIC:#x}"
        )
    sizes = cursor.numbers(f"{len(HPARAMS)}I", "ggml header")
    return dict(zip(HPARAMS, sizes, strict=True))


def _skip_mel_filters(cursor: Cursor) -> None:
    rows, columns = cursor.numbers("2I", "size of the mel filters")
    cursor.take(4 * rows * columns, "mel filters")


def _skip_vocabulary(cursor: Cursor) -> None:
    (count,) = cursor.numbers("I", "size of the vocabulary")
    for i in range(count):
        (length,) = cursor.numbers("I", f"length of token {i}")
        cursor.take(length, f"token {i}")


def _read_tensor(cursor: Cursor) -> tuple[str, torch.Tensor]:
    rank, length, dtype = cursor.numbers("3I", "tensor header")
    shape = cursor.numbers(f"{rank}I", "tensor shape")[::-1]
    name = str(cursor.take(length, "tensor name"), "utf-8")
    if dtype not in DTYPES:
        raise ValueError(
            f"type of tensor {name} must be f32 or f16, but got {dtype}; "
            f"known: {sorted(DTYPES)}"
        )
    tensor = cursor.tensor(shape, DTYPES[dtype], f"tensor {name}")
    return name, tensor.flatten() if name.endswith("bias") else tensor
