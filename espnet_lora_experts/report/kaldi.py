"""Kaldi's tables: a line ``key value`` for each utterance, the value may be empty."""

from collections.abc import Mapping
from pathlib import Path

from espnet_lora_experts import atomic


def read_table(path: Path) -> dict[str, str]:
    """Reads a table.

    Raises:
        FileNotFoundError: No such file.
        ValueError: A key twice, or no UTF-8.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} must exist, but does not")
    table: dict[str, str] = {}
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # splitlines splits more
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be UTF-8, but got: {error}") from error
    for key, *value in (line.split(maxsplit=1) for line in lines if line.strip()):
        if key in table:
            raise ValueError(f"{path} must have each key once, but has {key!r} twice")
        table[key] = "".join(value).strip()
    return table


def write_table(path: Path, table: Mapping[str, object]) -> None:
    """Writes a table in the order that it has; a reader sees all of it or nothing."""
    lines = [f"{key} {value}".rstrip() + "\n" for key, value in table.items()]
    atomic.write_text(path, "".join(lines))
