"""What stage 9 decodes: systems, in modes and ways, on sets; and what of it is done."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields
from pathlib import Path

from espnet_lora_experts.report import decodes
from espnet_lora_experts.whisper.decoding import DecodeOptions
from espnet_lora_experts.whisper.description import (
    DESCRIPTION,
    read_description,
    write_description,
)
from espnet_lora_experts.whisper.folder import TWO_PASS

CROSS = "cross_"
"""Mode ``cross_es``: the Spanish expert decodes all languages."""
PADDED, TOP = "30s", "top"
"""Ways to decode, see above."""
OPTIONS = (
    "autocast",
    "batch_seconds",
    *(field.name for field in fields(DecodeOptions)),
)
"""What :class:`~.inference.Speech2Text` takes from the command line."""


@dataclass(frozen=True)
class Task:
    """One system on one test set in one mode."""

    system: str
    mode: str
    data: Path
    expdir: Path

    @property
    def folder(self) -> Path:
        """Where the results go."""
        return self.expdir / self.system / f"decode_{self.mode}" / self.data.name

    @property
    def name(self) -> str:
        """The system without the way that it is decoded in."""
        return self.system.partition("@")[0]

    @property
    def way(self) -> str:
        """The way that it is decoded in; "" is its own."""
        return self.system.partition("@")[2]

    @property
    def two_pass(self) -> bool:
        """Whether another system finds the language for the experts."""
        return f"{self.name}_".startswith(f"{TWO_PASS}_")

    @property
    def top_k(self) -> int:
        """K of ``NAME@topK``; 0 without."""
        number = self.way.removeprefix(TOP)
        own = number != self.way and number.isdecimal() and not self.two_pass
        return int(number) if own else 0

    @property
    def trained(self) -> Path:
        """The folder of what was trained."""
        tag = self.name.removeprefix(TWO_PASS)
        return self.expdir / (f"mono{tag}" if self.two_pass else self.name)

    @property
    def finder(self) -> Path | None:
        """The folder of the system that finds the language for two passes."""
        own = self.two_pass and self.way not in ("", PADDED)
        return self.expdir / self.way if own else None

    def voice(self, lang: str | None) -> tuple[str, str | None]:
        """What decodes a clip: the system, and the expert where it takes but one."""
        if self.mode.startswith(CROSS):
            return self.system, self.mode.removeprefix(CROSS)
        if self.top_k and lang:
            return self.name, None  # who is told has no use for the others
        if lang is None or not f"{self.trained.name}_".startswith("mono_"):
            return self.system, None
        padded = f"@{PADDED}" if self.way == PADDED else ""
        return f"{self.trained.name}{padded}", lang


def modes_of(system: str, modes: list[str], args) -> list[str]:
    """The modes of a system: experts must be told, two_pass is for not knowing."""
    crossed = args.langs.split() if args.cross and system == "mono" else []
    own = [mode for mode in decodes.modes_of(system) if mode in modes]
    own.sort()  # agnostic first: most of aware is known then
    return own + [CROSS + expert for expert in crossed]


def is_done(task: Task, args) -> bool:
    """Whether the folder holds what this task would give."""
    written = task.folder / "decode.json"
    if not written.exists():
        return False
    return json.loads(written.read_text()).get("signature") == signature(task, args)


def signature(task: Task, args) -> str:
    """Hash of what a decoding depends on: options, weights and utterances."""
    names = ("langs", "backbone", *OPTIONS)
    options = {name: getattr(args, name, None) for name in names}
    digest = hashlib.sha256(json.dumps([task.system, task.mode, options]).encode())
    for path in (
        *files_of(task.trained),
        *(files_of(task.finder) if task.finder else ()),
        task.data / "wav.scp",
        task.data / "utt2lang",
    ):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def files_of(folder: Path) -> list[Path]:
    """A trained system's description and weights; none of vanilla's."""
    if folder.name == "vanilla":
        return []
    experts = read_description(folder).get("experts", {}).values()
    folders = [folder, folder / "backbone", *(folder / path for path in experts)]
    weights = [path for x in folders for path in sorted(x.glob("*.safetensors"))]
    return [folder / DESCRIPTION, *weights]


def describe_way(task: Task) -> None:
    """Writes the ``system.json`` of a system that is decoded in another way.

    Raises:
        ValueError: There is no such way, or not for this system.
    """
    what = read_description(task.expdir / task.name)
    if task.finder:
        found = read_description(task.finder)
        for key in ("steps", "trained_params"):
            what[key] += found[key]
        what["deployed_params"] += found["trained_params"]
    elif task.top_k:
        if what["type"] != "mole":
            raise ValueError(
                "NAME in NAME@topK must be a MoLE, which has a router, but "
                f"{task.name} is of type {what['type']}"
            )
        what["type"] = "top_k"
    elif task.way == PADDED:
        what["type"] = "padded"
    else:
        raise ValueError(
            f"a way to decode must be NAME@30s, NAME@topK or two_pass@NAME, but got "
            f"{task.system}"
        )
    write_description(task.expdir / task.system, what)
