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
