"""Where recipes and configurations lie: in the installed package, or in a checkout.

A wheel carries ``egs2/`` and ``conf/`` in ``espnet_lora_experts/share``; in a checkout
they are beside the package.
"""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).parent
RECIPE = "asr1"
"""The folder inside each of ``egs2/``, as in ESPnet."""


def root() -> Path:
    """The folder that has ``egs2/`` and ``conf/``.

    Raises:
        FileNotFoundError: Neither the package nor a checkout around it has them.

    Example:
        >>> (root() / "conf/train_expert.yaml").is_file()
        True
    """
    for folder in (PACKAGE / "share", PACKAGE.parent):
        if (folder / "egs2" / "TEMPLATE").is_dir():
            return folder
    raise FileNotFoundError(
        f"{PACKAGE} must have its recipes in share/, but has none; install the package "
        "again, with pip, from a wheel or a checkout"
    )


def config(name: str) -> Path:
    """The path of a YAML of ``conf/``."""
    return root() / "conf" / name


def recipes() -> dict[str, Path]:
    """Folder of every recipe that can be run, by its name.

    Example:
        >>> "mini_multilingual" in recipes()
        True
    """
    scripts = sorted(root().glob(f"egs2/*/{RECIPE}/run.sh"))
    return {script.parent.parent.name: script.parent for script in scripts}
