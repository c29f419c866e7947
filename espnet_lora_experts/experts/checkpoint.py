"""Torch's files from strangers: named tensors, nothing else, no larger than the file.

``torch.load(weights_only=True)`` runs no code, but it believes what a file says of its
sizes, and unpacks what is compressed. So a file is looked through first: its pickle may
call nothing but what builds tensors, and each tensor must lie inside its own record.
"""

from __future__ import annotations

import io
import math
import os
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

MOST_PICKLE = 2**26
"""Bytes of a file's index; that of Whisper large-v3 has a quarter of a million."""
BYTES = {
    "DoubleStorage": 8,
    "FloatStorage": 4,
    "HalfStorage": 2,
    "BFloat16Storage": 2,
    "LongStorage": 8,
    "IntStorage": 4,
    "ShortStorage": 2,
    "CharStorage": 1,
    "ByteStorage": 1,
    "BoolStorage": 1,
}
OPCODES = set(
    """
    PROTO STOP MARK EMPTY_DICT EMPTY_LIST EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 NONE
    NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE SHORT_BINUNICODE
    BINPUT LONG_BINPUT BINGET LONG_BINGET GLOBAL REDUCE BUILD BINPERSID SETITEM SETITEMS
    APPEND APPENDS
    """.split()
)
"""What :func:`torch.save` writes; none of them reserves memory."""


def load_tensors(path: str | os.PathLike) -> dict[str, Tensor]:
    """The tensors of a file of :func:`torch.save`, mapped rather than read.

    Raises:
        ValueError: What :func:`check_tensors` refuses.
    """
    check_tensors(path)
    try:
        return dict(torch.load(path, map_location="cpu", mmap=True, weights_only=True))
    except Exception as error:  # as below
        raise ValueError(
            f"{Path(path)} must be a whole file of torch.save, but got: {error}"
        ) from error


def check_tensors(path: str | os.PathLike) -> None:
    """Looks through a file of :func:`torch.save`; nothing of it is run or allocated.

    Raises:
        ValueError: It is broken, holds something else than named tensors, or claims
            more than it has.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check(archive)
    except Exception as error:  # a damaged file can end in any of them
        raise ValueError(
            f"{Path(path)} must hold tensors and nothing else, and be whole, but got "
            f"{type(error).__name__}: {error}; download it again, or ask "
            "for safetensors"
        ) from error


def _check(archive: zipfile.ZipFile) -> None:
    sizes, index = {}, None
    for info in archive.infolist():
        if info.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{info.filename} is compressed")
        sizes[info.filename.partition("/")[2]] = info.file_size
        if info.filename.endswith("/data.pkl"):
            index = info
    if index is None:
        raise ValueError("no data.pkl, which names the tensors")
    if index.file_size > MOST_PICKLE:
        raise ValueError(f"an index of {index.file_size} bytes")
    content = archive.read(index)
    strange = {opcode.name for opcode, *_ in pickletools.genops(content)} - OPCODES
    if strange:
        raise ValueError(f"pickle's {', '.join(sorted(strange))}")
    found = _Index(io.BytesIO(content), sizes).load()
    if not isinstance(found, dict):
        raise ValueError(f"{type(found).__name__}")
    for name, value in found.items():
        if not isinstance(name, str) or value is not _TENSOR:
            raise ValueError(f"{type(value).__name__} at {name!r}")


class _Tensor:
    """Stands for a tensor that was checked."""


_TENSOR = _Tensor()


class _Index(pickle._Unpickler):  # Python's: that of C reserves as told
    """Builds no tensor, but checks where each would lie.

    Args:
        file: The pickle.
        sizes: Bytes of each record of the archive.
    """

    def __init__(self, file: io.BytesIO, sizes: dict[str, int]):
        super().__init__(file)
        self.sizes = sizes

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch._utils" and name in _BUILDERS:
            return _BUILDERS[name]
        if module == "torch" and name in BYTES:
            return BYTES[name]
        raise ValueError(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> int:
        """The number of elements of a storage that its record really has."""
        _, width, key, _, count = pid
        if self.sizes.get(f"data/{key}") != width * count:
            raise ValueError(f"storage {key} of {count} elements, which it has not")
        return count


def _tensor(storage: int, offset: int, size: tuple, stride: tuple, *_) -> _Tensor:
    inside = len(size) == len(stride) and all(x >= 0 for x in (offset, *size, *stride))
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if not inside or math.prod(size) > storage or (math.prod(size) and last >= storage):
        raise ValueError(f"a tensor of {size} in {storage} elements")
    return _TENSOR


def _parameter(tensor: _Tensor, *_) -> _Tensor:
    return tensor


_BUILDERS = {"_rebuild_tensor_v2": _tensor, "_rebuild_parameter": _parameter}
