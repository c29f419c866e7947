"""What a page of results says about its making."""

import hashlib
import json
import os
import platform
import re
import shlex
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import yaml

_PACKAGES = ("espnet-lora-experts", "espnet", "torch", "transformers", "peft", "jiwer")
_ABSOLUTE = re.compile(r"""(?<![^\s='"({\[,:])/(?!/)[^\s'",:)}\]]+""")  # no URL


def describe(module: str, cmd: Sequence[str], run: str = "") -> dict[str, str]:
    """Date, versions, commit and commands, without absolute paths: the page is shared.

    Args:
        module: The module that was run.
        cmd: Its arguments.
        run: The command that made what the module scores; "" leaves it out.
    """
    command = shlex.join(["python", "-m", module, *cmd])
    commands = {"run": " ".join(run.split()), "command": command}
    versions = {name: installed(name) for name in _PACKAGES}
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "python": platform.python_version(),
        **{name: found for name, found in versions.items() if found},
        "git": git_hash(),
        **{name: relative(text) for name, text in commands.items() if text},
    }


def trainings(
    expdir: Path, names: Sequence[str]
) -> tuple[dict[str, int], dict[str, str]]:
    """Seed and configuration's hash of each system's training, as far as it has one.

    ``NAME@...`` is the system NAME; experts of jobs of their own are NAME_LANG. The
    configuration is ESPnet's ``config.yaml``, without where its files lie.
    """
    seeds, hashes = {}, {}
    for name in dict.fromkeys(name.partition("@")[0] for name in names):
        apart = sorted(expdir.glob(f"{name}_*/config.yaml"))
        found = [expdir / name / "config.yaml", *apart]
        for path in filter(Path.is_file, found[:1] if found[0].is_file() else found):
            text = path.read_text(encoding="utf-8")
            options = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
            options.pop("token_list", None)  # the backbone's
            plain = relative(json.dumps(options, sort_keys=True, default=str))
            hashes[path.parent.name] = hashlib.sha256(plain.encode()).hexdigest()[:12]
            seeds[path.parent.name] = options.get("seed")
    return seeds, hashes


def relative(text: str) -> str:
    """A text without absolute paths: each from here, or its last part only.

    Example:
        >>> relative("--expdir=/somewhere/exp --about 'backbone=/somewhere/tiny x=1'")
        "--expdir=exp --about 'backbone=tiny x=1'"
    """
    return _ABSOLUTE.sub(lambda found: _from_here(found[0]), text)


def _from_here(path: str) -> str:
    short = os.path.relpath(path)
    return Path(path).name if short.startswith("..") else short


def installed(package: str) -> str:
    """Version of an installed package, "" when it is not."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def git_hash() -> str:
    """The commit of this code, "-dirty" if changed; "unknown" outside a repository."""
    here = str(Path(__file__).parent)
    command = ["git", "-C", here, "describe", "--always", "--dirty", "--exclude=*"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return run.stdout.strip()
