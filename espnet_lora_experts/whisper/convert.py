"""What the readers of foreign Whisper files share: a bounds-checked cursor, a check.

The readers are :mod:`.convert_ggml` and :mod:`.convert_ct2`. Both are pure: bytes in,
float32 tensors under Hugging Face's names out.
"""

import math
import struct
from pathlib import Path

import numpy as np
import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration

Source = Path | str | bytes
StateDict = dict[str, torch.Tensor]

MAX_RANK = 4  # Whisper's own largest is 3, a convolution
MAX_LAYERS = 128  # of each side; large has 32
TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
TIED = "proj_out.weight"  # to model.decoder.embed_tokens.weight


class Cursor:
    """A position in a little-endian file that never moves past the file's end.

    Args:
        source: Path of the file, or its bytes.
    """

    def __init__(self, source: Source):
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
        self.data = memoryview(data)
        self.at = 0

    @property
    def done(self) -> bool:
        """Whether every byte was read."""
        return self.at == len(self.data)

    def take(self, size: int, what: str) -> memoryview:
        """Return the next `size` bytes.

        Raises:
            ValueError: If the file has fewer; the message names `what` was claimed.
        """
        left = len(self.data) - self.at
        if size > left:
            raise ValueError(
                f"{what} must lie inside the file, but got {size} bytes claimed at "
                f"byte {self.at}; known: {left} bytes left of {len(self.data)}"
            )
        self.at += size
        return self.data[self.at - size : self.at]

    def numbers(self, layout: str, what: str) -> tuple[int, ...]:
        """Return the numbers of a :mod:`struct` layout, for instance ``"3I"``."""
        layout = "<" + layout
        return struct.unpack(layout, self.take(struct.calcsize(layout), what))

    def tensor(self, shape: tuple[int, ...], dtype: str, what: str) -> torch.Tensor:
        """Return a float32 copy of the next array of numpy type `dtype`."""
        if not 1 <= len(shape) <= MAX_RANK or 0 in shape:
            raise ValueError(
                f"shape of {what} must be 1 to {MAX_RANK} positive sizes, but got "
                f"{shape[:8]}"
            )
        size = math.prod(shape) * np.dtype(dtype).itemsize
        array = np.frombuffer(self.take(size, what), dtype=dtype)
        return torch.from_numpy(array.astype(np.float32)).reshape(shape)


def config_of(state: StateDict, heads: int) -> WhisperConfig:
    """The configuration of a Whisper by its tensors, all of :data:`TOKEN_IDS` 0.

    Args:
        state: Tensors by Hugging Face's names.
        heads: Attention heads of each layer.

    Raises:
        ValueError: If a tensor that tells a size is missing, or `heads` impossible.
    """

    def shape(name: str, rank: int = 2) -> tuple[int, ...]:
        tensor = state.get(f"model.{name}.weight", torch.empty(()))
        if tensor.dim() != rank:
            raise ValueError(f"weights must have a {name} of rank {rank}, but do not")
        return tuple(tensor.shape)

    vocab_size, d_model = shape("decoder.embed_tokens")
    if heads < 1 or d_model % heads:
        raise ValueError(f"heads must divide the width {d_model}, but got {heads}")
    sizes = {"vocab_size": vocab_size, "d_model": d_model}
    for side in ("encoder", "decoder"):
        layers = {k.split(".")[3] for k in state if f"model.{side}.layers." in k}
        if len(layers) > MAX_LAYERS:
            raise ValueError(
                f"{side} must have up to {MAX_LAYERS} layers, but got {len(layers)}"
            )
        sizes[f"{side}_layers"] = len(layers)
        sizes[f"{side}_attention_heads"] = heads
        sizes[f"{side}_ffn_dim"] = shape(f"{side}.layers.0.fc1")[0]
    return WhisperConfig(
        **sizes,
        num_mel_bins=shape("encoder.conv1", 3)[1],
        max_source_positions=shape("encoder.embed_positions")[0],
        max_target_positions=shape("decoder.embed_positions")[0],
        begin_suppress_tokens=None,
        **dict.fromkeys(TOKEN_IDS, 0),
        architectures=[WhisperForConditionalGeneration.__name__],
    )


def check_state_dict(state: StateDict, config: WhisperConfig) -> None:
    """Check that `state` has the tensors of a Whisper of `config`, and no other.

    Args:
        state: Tensors by Hugging Face's names, without the tied ``proj_out.weight``.
        config: The model's configuration.

    Raises:
        ValueError: If a tensor is missing, unexpected or of another shape.
    """
    with torch.device("meta"):
        model = WhisperForConditionalGeneration(config)
    known = {k: tuple(v.shape) for k, v in model.state_dict().items() if k != TIED}
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    wrong = sorted(
        f"{name} {found.get(name, 'missing')} instead of {known.get(name, 'none')}"
        for name in known.keys() | found.keys()
        if known.get(name) != found.get(name)
    )
    if wrong:
        raise ValueError(
            f"weights must fit the configuration, but got {len(wrong)} tensors that do "
            f"not: {', '.join(wrong[:5])}; known: {len(known)} tensors"
        )
