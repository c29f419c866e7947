"""What the command lines share: a YAML of options, and how bad input ends."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml


def parse(
    parser: argparse.ArgumentParser, cmd: Sequence[str] | None
) -> argparse.Namespace:
    """Parses a command line; ``--config`` names a YAML of other defaults.

    Raises:
        ValueError: The YAML has a key that is no option.

    Example:
        >>> parser = argparse.ArgumentParser()
        >>> _ = parser.add_argument("--nj", type=int, default=1)
        >>> parse(parser, ["--nj", "4"]).nj
        4
    """
    config = argparse.ArgumentParser(add_help=False)
    config.add_argument("--config", type=Path, help="YAML with values for options")
    path = config.parse_known_args(cmd)[0].config
    if path is not None:
        _set_defaults(parser, path)
    parser.add_argument("--config", type=Path, help="YAML with values for options")
    return parser.parse_args(cmd)


def _set_defaults(parser: argparse.ArgumentParser, path: Path) -> None:
    values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    known = {action.dest: action for action in parser._actions}
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ValueError(
            f"{path} must have options of {sorted(known)}, but got {unknown}"
        )
    parser.set_defaults(**values)
    for name in values:
        known[name].required = False


def run(main: Callable[[], object]) -> None:
    """Runs a command; an error of input exits with its message and status 1."""
    try:
        main()
    except (ValueError, FileNotFoundError) as error:
        logging.debug("traceback", exc_info=True)
        sys.exit(f"error: {error}")
