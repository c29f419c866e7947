"""YAML from strangers: plain values, of bounded depth and size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's where it is: ESPnet's config.yaml lists all tokens."""
MOST_DEPTH = 40


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; {} of an empty one.

    Raises:
        ValueError: It is broken, something else, or too deep; the message names it.
    """
    try:
        return parse_yaml(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} must be YAML of options, but got: {error}") from error


def parse_yaml(text: str) -> dict[str, Any]:
    """The mapping in a YAML text; see :func:`read_yaml`.

    Example:
        >>> parse_yaml("nj: 4")
        {'nj': 4}
    """
    try:
        _check(text)
        found = yaml.load(text, LOADER)
    # Besides its own errors: dates and numbers that are none.
    except (yaml.YAMLError, ValueError, TypeError, OverflowError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{type(error).__name__}: {reason}") from error
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ValueError(f"a {type(found).__name__} instead of lines 'option: value'")
    return found


def _check(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MOST_DEPTH:
            raise ValueError(f"more than {MOST_DEPTH} levels")
        if isinstance(event, yaml.AliasEvent):  # of aliases: gigabytes of few lines
            raise ValueError(f"an alias, *{event.anchor}; write out what it stands for")
