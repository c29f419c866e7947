"""A trained system in the formats of other programs.

``huggingface`` is a plain Whisper checkpoint for transformers, ``ctranslate2`` the
folder that faster-whisper reads, ``ggml`` the file that whisper.cpp reads. A system
that runs one expert for each language is several Whispers: it is exported as its
experts and its router, or one language of it as one Whisper.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from espnet_lora_experts import atomic
from espnet_lora_experts.whisper import languages
from espnet_lora_experts.whisper.card import update_cards, write_exported
from espnet_lora_experts.whisper.description import (
    DESCRIPTION,
    read_description,
    write_json,
)
from espnet_lora_experts.whisper.export import ct2, ggml, huggingface, places, routed
from espnet_lora_experts.whisper.export.folded import Folded, fold
from espnet_lora_experts.whisper.folder import TWO_PASS, VANILLA, load_system
from espnet_lora_experts.whisper.source import find
from espnet_lora_experts.whisper.systems import System

logger = logging.getLogger(__name__)

HUGGINGFACE, CTRANSLATE2, GGML = FORMATS = ("huggingface", "ctranslate2", "ggml")
FOLDED = "folded"
"""Type of an export that is one Whisper; others are named as the system's."""
DTYPES = {"float32": torch.float32, "float16": torch.float16}


@dataclass(frozen=True)
class Options:
    """What to export.

    Attributes:
        to: One of :data:`FORMATS`.
        lang: Export the system as it runs in this language; None: in all of its own.
        dtype: Type of the weights of ``huggingface`` and ``ggml``, of :data:`DTYPES`;
            None is float32 for the former and float16 for the latter, as whisper.cpp
            runs no other floats.
        quantization: Type of the weights of ``ctranslate2``, by its own names; None is
            float32.
        with_backbone: Put the backbone beside experts, so that the folder needs no hub.

    Raises:
        ValueError: A value is unknown, or an option is of another format.
    """

    to: str
    lang: str | None = None
    dtype: str | None = None
    quantization: str | None = None
    with_backbone: bool = False

    def __post_init__(self):
        if self.to not in FORMATS:
            raise ValueError(f"--to must be one of {FORMATS}, but got {self.to!r}")
        if self.dtype is not None and self.dtype not in DTYPES:
            raise ValueError(
                f"--dtype must be one of {[*DTYPES]}, but got {self.dtype!r}"
            )
        if self.dtype is not None and self.to == CTRANSLATE2:
            raise ValueError(
                f"--dtype must be left out with --to {CTRANSLATE2}, but got "
                f"{self.dtype!r}; give --quantization {self.dtype}"
            )
        if self.quantization is not None and self.to != CTRANSLATE2:
            raise ValueError(
                f"--quantization must be given with --to {CTRANSLATE2} only, but got "
                f"{self.quantization!r} with --to {self.to}; give --dtype"
            )
        if self.to == CTRANSLATE2:
            ct2.check(self.weights)

    @property
    def weights(self) -> str:
        """Type of the weights."""
        default = "float16" if self.to == GGML else "float32"
        return self.quantization or self.dtype or default


def export(
    folder: str | os.PathLike,
    out: str | os.PathLike,
    options: Options,
    force: bool = False,
) -> dict[str, Any]:
    """Exports a system, whole or not at all.

    Args:
        folder: The system's folder.
        out: Folder to write; of ``ggml`` a file. It must be new, or empty.
        options: What to export.
        force: Replace an earlier export at ``out``.

    Returns:
        What was written: the content of ``export.json`` in the new folder.

    Raises:
        FileNotFoundError: A file of the system is missing.
        ValueError: The system cannot be exported so, ``out`` is taken, or the library
            of the format is not installed.
    """
    _refuse_two_passes(Path(folder))
    out = Path(out)
    places.check(out, Path(folder), force, is_file=options.to == GGML)
    backbone, system, what = load_system(folder)
    _check_language(options, system, folder)
    as_experts = system.routed and options.lang is None
    _check_experts(options, as_experts, what["type"], folder)
    facts = _facts(options, what, as_experts)
    with _place(out, options) as temp:
        if as_experts:
            routed.write(temp, backbone, system, what, options.with_backbone)
        else:
            suppress_tokens = what["type"] == VANILLA  # as Speech2Text decodes it
            folded = fold(backbone, system, options.lang, suppress_tokens)
            _write_folded(temp, folded, options)
        if options.to != GGML:
            write_json(temp / places.MARK, facts)
    _write_cards(out, folder, what, facts)
    logger.info("%s is in %s as %s", folder, out, options.to)
    return facts


def _place(out: Path, options: Options) -> AbstractContextManager[Path]:
    return atomic.file(out) if options.to == GGML else atomic.folder(out)


def _write_folded(temp: Path, folded: Folded, options: Options) -> None:
    if options.to == CTRANSLATE2:
        ct2.write(temp, folded, options.weights)
    elif options.to == GGML:
        ggml.write(temp, folded, DTYPES[options.weights])
    else:
        huggingface.write(temp, folded, DTYPES[options.weights])


def _write_cards(out: Path, folder, what: Mapping[str, Any], facts) -> None:
    """Once the export is in its place, which the cards name."""
    if facts["type"] != FOLDED:
        update_cards(out)
    elif facts["format"] != GGML:
        write_exported(out, find(folder).folder, what, facts)


def _facts(options: Options, what: Mapping[str, Any], as_experts: bool):
    return {
        "format": options.to,
        "type": what["type"] if as_experts else FOLDED,
        "system": what["type"],
        "languages": [options.lang] if options.lang else what["languages"],
        "backbone": what["backbone"],
        "dtype": options.weights,
        "with_backbone": options.with_backbone,
    }


def _refuse_two_passes(folder: Path) -> None:
    """Before anything is loaded; a hub id has no file here, and is checked later."""
    if not (folder / DESCRIPTION).is_file():
        return
    if read_description(folder)["type"] == TWO_PASS:
        raise ValueError(
            f"{folder} must be a system by itself, but {TWO_PASS} is two of them; "
            "export the folder of the experts (the recipes' exp/mono), or one of them "
            "with --lang"
        )


def _check_language(options: Options, system: System, folder) -> None:
    if options.lang is None:
        return
    code = languages.get(options.lang).code
    if code not in system.languages:
        raise ValueError(
            f"--lang must be a language of {folder}, {' '.join(system.languages)}, but "
            f"got {code!r}"
        )


def _check_experts(options: Options, as_experts: bool, kind: str, folder) -> None:
    """What cannot be asked of experts, and what only of them."""
    if as_experts and options.to != HUGGINGFACE:
        raise ValueError(
            f"{folder} must be one Whisper to be exported to {options.to}, but is of "
            f"type {kind}, an expert for each language; give --lang for one of them, "
            "distil it into one LoRA first (stage 8), or export the experts with --to "
            f"{HUGGINGFACE}"
        )
    if as_experts and options.dtype is not None:
        raise ValueError(
            f"--dtype must be left out for the experts of {folder}, which stay "
            f"float32, but got {options.dtype!r}; give it with --lang"
        )
    if options.with_backbone and not as_experts:
        raise ValueError(
            f"--with_backbone must be given with experts only, but {folder} is folded "
            "into its backbone; leave it out"
        )
