"""What a page of results says about its making."""

import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

_PACKAGES = ("espnet-lora-experts", "espnet", "torch", "transformers", "peft", "jiwer")


def describe(module: str, cmd: Sequence[str]) -> dict[str, str]:
    """Date, versions, commit and command line.

    Args:
        module: The module that was run.
        cmd: Its arguments. Absolute paths are made relative: the page is shared.
    """
    command = ["python", "-m", module, *map(relative, cmd)]
    versions = {name: installed(name) for name in _PACKAGES}
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "python": platform.python_version(),
        **{name: found for name, found in versions.items() if found},
        "git": git_hash(),
        "command": " ".join(f'"{arg}"' if " " in arg else arg for arg in command),
    }


def relative(argument: str) -> str:
    """An argument without absolute paths: from here, or the last part only."""
    option, equals, value = argument.rpartition("=")
    if not os.path.isabs(value):
        return argument
    path = os.path.relpath(value)
    short = os.path.basename(value) if path.startswith("..") else path
    return f"{option}{equals}{short}"


def installed(package: str) -> str:
    """Version of an installed package, "" when it is not."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def git_hash() -> str:
    """The commit of this code, "unknown" outside a repository."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return run.stdout.strip()
