"""What the command lines share: a YAML of options, and how bad input ends."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from espnet_lora_experts.whisper.yaml_files import read_yaml


def parse(
    parser: argparse.ArgumentParser, cmd: Sequence[str] | None
) -> argparse.Namespace:
    """Parses a command line; ``--config`` names a YAML of other defaults.

    Raises:
        ValueError: The YAML is none, has a key that is no option, or a value that the
            option does not take.

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


def boolean(text: str) -> bool:
    """Read true or false."""
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"must be true or false, but got {text!r}")
    return text.lower() == "true"


def _set_defaults(parser: argparse.ArgumentParser, path: Path) -> None:
    values = _read(path)
    known = {action.dest: action for action in parser._actions if action.dest != "help"}
    unknown = sorted(map(str, set(values) - set(known)))
    if unknown:
        raise ValueError(
            f"{path} must have options of {sorted(known)}, but got {unknown}"
        )
    for name, value in values.items():
        action = known[name]
        _check(action, value, path)
        # As text, argparse converts it to the option's type, or refuses it.
        typed = action.type is not None and value is not None
        parser.set_defaults(**{name: str(value) if typed else value})
        action.required = False


def _check(action: argparse.Action, value: object, path: Path) -> None:
    """What argparse does not check in defaults."""
    choices = [True, False] if action.nargs == 0 else action.choices
    if choices and value not in choices:
        raise ValueError(
            f"{path}: {action.dest} must be one of {[*choices]}, but got {value!r}"
        )
    if not choices and action.type is None and not isinstance(value, str):
        raise ValueError(
            f"{path}: {action.dest} must be text, but got {value!r}; quote it"
        )


def _read(path: Path) -> dict:
    if not path.is_file():
        raise ValueError(f"--config must be a YAML file, but got {path}")
    return read_yaml(path)


def show_log() -> None:
    """Shows what is logged, with time and level, on standard error."""
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s: %(message)s")


def run(main: Callable[[], object]) -> None:
    """Runs a command; an error of input, of a disk or of a lost process is a line."""
    try:
        main()
    except (ValueError, OSError) as error:
        logging.debug("traceback", exc_info=True)
        sys.exit(f"error: {error}")
