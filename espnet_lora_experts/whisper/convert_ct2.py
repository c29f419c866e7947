"""Reader of CTranslate2's ``model.bin`` of a Whisper (f32 and f16).

The file, little-endian: version, specification, revision, variables, aliases. A
variable equal to an earlier one is stored as its alias. Attention's projections are
fused: query, key and value in self-attention, key and value in cross-attention.
Source: https://github.com/OpenNMT/CTranslate2, ``python/ctranslate2/specs``.
"""

import math
import re

import torch
from transformers import WhisperConfig

from espnet_lora_experts.whisper.convert import (
    Cursor,
    Source,
    StateDict,
    check_state_dict,
)

VERSIONS = (4, 5, 6)  # dtype byte, byte count, aliases: the same layout in all three
SPEC = "WhisperSpec"
MOST_GROWTH = 4  # f16 becomes f32, embeddings count twice
FLOATS = {0: "<f4", 4: "<f2"}
PROJECTION, EMBEDDINGS = "decoder/projection/weight", "decoder/embeddings/weight"
IGNORED = ("num_heads", "alignment_heads", "alignment_layer")
LEAVES = {
    "weight": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "encodings": "weight",
}
MODULES = {
    "embeddings": ["embed_tokens"],
    "position_encodings": ["embed_positions"],
    "conv1": ["conv1"],
    "conv2": ["conv2"],
    "layer_norm": ["layer_norm"],
    "self_attention/layer_norm": ["self_attn_layer_norm"],
    "self_attention/linear_0": ["self_attn.q_proj", "self_attn.k_proj"]
    + ["self_attn.v_proj"],
    "self_attention/linear_1": ["self_attn.out_proj"],
    "attention/layer_norm": ["encoder_attn_layer_norm"],
    "attention/linear_0": ["encoder_attn.q_proj"],
    "attention/linear_1": ["encoder_attn.k_proj", "encoder_attn.v_proj"],
    "attention/linear_2": ["encoder_attn.out_proj"],
    "ffn/layer_norm": ["final_layer_norm"],
    "ffn/linear_0": ["fc1"],
    "ffn/linear_1": ["fc2"],
}


def ct2_to_state_dict(source: Source, config: WhisperConfig) -> StateDict:
    """Read a CTranslate2 Whisper of a known configuration.

    Args:
        source: Path of ``model.bin``, or its bytes.
        config: The model's configuration, which the tensors must fit.

    Returns:
        The tensors of :func:`read_ct2`.

    Raises:
        ValueError: If :func:`read_ct2` does, or the tensors do not fit `config`.
    """
    state = read_ct2(source)[1]
    check_state_dict(state, config)
    return state


def read_ct2(source: Source) -> tuple[dict[str, int], StateDict]:
    """Read a CTranslate2 Whisper.

    Args:
        source: Path of ``model.bin``, or its bytes.

    Returns:
        The options by CTranslate2's names, and the tensors in float32 under Hugging
        Face's names, without the tied ``proj_out``. The fused bias has a row for the
        key, always zero, which Hugging Face's Whisper does not have; it is left out.

    Raises:
        ValueError: If the file is no CTranslate2 Whisper, is quantised, or claims more
            bytes than it has.
    """
    cursor = Cursor(source)
    _check_header(cursor)
    options, variables = _read_variables(cursor)
    _read_aliases(cursor, variables)
    projection = variables.pop(PROJECTION, None)
    if projection is not None and projection is not variables.get(EMBEDDINGS):
        raise ValueError(f"{PROJECTION} must be tied, but got a tensor of its own")
    state: StateDict = {}
    for name, tensor in variables.items():
        names = hf_names(name)
        if len(tensor) % len(names):
            raise ValueError(
                f"{name} must be {len(names)} matrices, but has {len(tensor)} rows"
            )
        state.update(zip(names, tensor.chunk(len(names)), strict=True))
    state = {k: v.clone() for k, v in state.items() if not k.endswith("k_proj.bias")}
    return options, state


def hf_names(name: str) -> list[str]:
    """Translate a variable's name to Hugging Face's, several when it is fused.

    Example:
        >>> hf_names("decoder/layer_0/attention/linear_1/weight")[1]
        'model.decoder.layers.0.encoder_attn.v_proj.weight'
    """
    match = re.fullmatch(r"(encoder|decoder)/(?:layer_(\d+)/)?(.+)/(\w+)", name)
    side, layer, module, leaf = match.groups() if match else ("", None, "", "")
    if module not in MODULES or leaf not in LEAVES:
        raise ValueError(
            f"CTranslate2 variable must be a Whisper's, but got {name}; "
            f"known: {', '.join(MODULES)}"
        )
    stem = f"model.{side}." + (f"layers.{layer}." if layer else "")
    return [f"{stem}{target}.{LEAVES[leaf]}" for target in MODULES[module]]


def _check_header(cursor: Cursor) -> None:
    (version,) = cursor.numbers("I", "CTranslate2 version")
    if version not in VERSIONS:
        raise ValueError(
            f"CTranslate2 version must be known, but got {version}; known: {VERSIONS}"
        )
    spec = _read_name(cursor, "CTranslate2 specification")
    if spec != SPEC:
        raise ValueError(
            f"CTranslate2 specification must be known, but got {spec!r}; known: {SPEC}"
        )
    cursor.numbers("I", "CTranslate2 revision")


def _read_name(cursor: Cursor, what: str) -> str:
    (length,) = cursor.numbers("H", f"length of {what}")
    return str(cursor.take(length, what), "utf-8").rstrip("\0")


def _read_variables(cursor: Cursor) -> tuple[dict[str, int], StateDict]:
    (count,) = cursor.numbers("I", "number of variables")
    pairs = dict(_read_variable(cursor, i) for i in range(count))
    options = {k: v for k, v in pairs.items() if isinstance(v, int)}
    return options, {k: v for k, v in pairs.items() if isinstance(v, torch.Tensor)}


def _read_variable(cursor: Cursor, index: int) -> tuple[str, torch.Tensor | int]:
    """Return a variable's name and tensor; an option is a number without weights."""
    name = _read_name(cursor, f"name of variable {index}")
    (rank,) = cursor.numbers("B", f"rank of {name}")
    shape = cursor.numbers(f"{rank}I", f"shape of {name}")
    dtype, size = cursor.numbers("BI", f"type and size of {name}")
    if rank == 0 or name.endswith(IGNORED):
        return name, int.from_bytes(cursor.take(size, f"option {name}"), "little")
    if dtype not in FLOATS:
        raise ValueError(
            f"type of {name} must be f32 or f16, but got {dtype}; "
            f"known: {sorted(FLOATS)}"
        )
    expected = math.prod(shape) * int(FLOATS[dtype][-1])
    if size != expected:
        raise ValueError(
            f"size of {name} must be {expected} bytes for shape {shape}, but got {size}"
        )
    return name, cursor.tensor(shape, FLOATS[dtype], f"tensor {name}")


def _read_aliases(cursor: Cursor, variables: StateDict) -> None:
    """Add the aliases, each the very tensor of its target, to `variables`.

    Aliases are biases of zeros and the tied embeddings: they may not multiply the file.
    """
    (count,) = cursor.numbers("I", "number of aliases")
    for i in range(count):
        alias = _read_name(cursor, f"alias {i}")
        target = _read_name(cursor, f"target of alias {alias}")
        if target in variables:
            variables[alias] = variables[target]
        elif not alias.endswith(IGNORED):
            raise ValueError(
                f"alias {alias} must name a variable, but got {target}; "
                f"known: {len(variables)} variables"
            )
    claimed = sum(tensor.nbytes for tensor in variables.values())
    if claimed > MOST_GROWTH * len(cursor.data):
        raise ValueError(
            f"aliases must not multiply the weights, but {claimed} bytes are claimed "
            f"by {len(cursor.data)}"
        )
