"""Kaldi's tables of a million lines, in the memory of their files."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from zlib import crc32

import numpy as np
from espnet2.train.dataset import AbsDataset, ESPnetDataset


class Table(Mapping[str, str]):
    """``key value`` lines as a mapping: a file's bytes, and an index of its keys.

    The index has 12 bytes a line: a hash of the key, by which it is sorted, and where
    the line starts. A dictionary has some 200 bytes more; and as reading a string
    counts its readers, each process that loads data would get its own copy of it.

    Args:
        path: The file; each key must be there once, as ESPnet's readers check.

    Example:
        >>> from tempfile import mkdtemp
        >>> path = Path(mkdtemp(), "utt2lang")
        >>> _ = path.write_text("b ru\\na es\\n")
        >>> table = Table(path)
        >>> table["a"], [*table], "c" in table
        ('es', ['b', 'a'], False)
    """

    def __init__(self, path: Path | str):
        self.data = Path(path).read_bytes()
        hashes, starts, at = array("L"), array("L"), 0
        for line in BytesIO(self.data):
            if line.strip():
                hashes.append(_hash(_split(line)[0]))
                starts.append(at)
            at += len(line)
        hashed = np.array(hashes, np.uint32)
        order = np.argsort(hashed)
        self.hashes = hashed[order]
        self.starts = np.array(starts, np.int64)[order]

    def __getitem__(self, key: str) -> str:
        wanted = np.uint32(_hash(key))  # of the array's type, or numpy converts it all
        i = int(np.searchsorted(self.hashes, wanted))
        while i < len(self) and self.hashes[i] == wanted:
            start = int(self.starts[i])
            end = self.data.find(b"\n", start)
            found, value = _split(self.data[start : end if end >= 0 else None])
            if found == key:
                return value
            i += 1
        raise KeyError(key)

    def rows(self) -> Iterator[tuple[str, str]]:
        """Keys and values in the file's order."""
        return (_split(line) for line in BytesIO(self.data) if line.strip())

    def __iter__(self) -> Iterator[str]:
        return (key for key, _ in self.rows())

    def __len__(self) -> int:
        return len(self.starts)


def _hash(key: str) -> int:
    return crc32(key.encode())  # the same in every process, as Python's own is not


def _split(line: bytes) -> tuple[str, str]:
    key, *value = line.decode().rstrip().split(maxsplit=1)
    return key, "".join(value)


def compact(dataset: AbsDataset) -> AbsDataset:
    """Puts a :class:`Table` in the place of each of a dataset's dictionaries."""
    if isinstance(dataset, ESPnetDataset):
        for name, (path, kind) in dataset.debug_info.items():
            if kind == "text":
                dataset.loader_dict[name] = Table(path)
            elif kind == "sound":
                dataset.loader_dict[name].loader.data = Table(path)
    return dataset
