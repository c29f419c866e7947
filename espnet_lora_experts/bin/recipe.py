"""Copies a recipe, complete and ready to run, into a new folder.

    espnet-lora-experts recipe my_recipe
    cd my_recipe && ./run.sh --help

The copy is yours to change. For your own speech, put Kaldi-style data dirs at
data/train, data/dev and data/test and start with ./run.sh --stage 2, or write your own
local/data.sh. It runs with the Python that made the copy (activate_python.sh), unless a
virtual environment is active or the variable python says otherwise.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
from pathlib import Path

from espnet_lora_experts import atomic, packaged
from espnet_lora_experts.bin import cli

DEFAULT = "mini_multilingual"
SKELETON = ("*.sh", "README.md", "conf", "local")
"""What belongs to a recipe; all else in its folder was made by running it."""


def get_parser() -> argparse.ArgumentParser:
    """Options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dir", type=Path, help="folder to make")
    parser.add_argument("--name", default=DEFAULT, help=f"default: {DEFAULT}")
    return parser


def main(cmd=None) -> None:
    """Copies and says what to do next."""
    args = get_parser().parse_args(cmd)
    known = packaged.recipes()
    if args.name not in known:
        raise ValueError(f"--name must be of {sorted(known)}, but got {args.name!r}")
    copy(known[args.name], args.dir)
    print(f"{args.dir} is the recipe {args.name}. Next:\n  cd {args.dir} && ./run.sh")


def copy(source: Path, target: Path) -> None:
    """Copies a recipe's files, links as what they point to; whole or not at all.

    Raises:
        ValueError: The target is there already.
    """
    if target.exists():
        raise ValueError(f"{target} must be a new folder, but is there already")
    with atomic.folder(target) as temp:
        _fill(temp, source)


def _fill(temp: Path, source: Path) -> None:
    for path in sorted(path for p in SKELETON for path in source.glob(p)):
        if path.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(path, temp / path.name, ignore=ignored)
        else:
            shutil.copy(path, temp / path.name)
    for path in temp.rglob("*"):
        if path.is_file() and path.read_bytes().startswith(b"#!"):
            path.chmod(path.stat().st_mode | 0o111)  # which installers may drop
    (temp / "activate_python.sh").write_text(
        "# Sourced by path.sh: the environment that this recipe was copied from.\n"
        f"python={shlex.quote(sys.executable)}\n",
        encoding="utf-8",
    )


if __name__ == "__main__":
    cli.run(main)
