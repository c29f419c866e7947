"""What a folder or a file is, told from its headers and descriptions.

:func:`describe` gives plain values only: text, numbers, lists of them, tables as lists
of dicts. Nothing heavy is imported but for a checkpoint of torch.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from espnet_lora_experts.whisper import artefacts_backbone, artefacts_espnet, headers
from espnet_lora_experts.whisper.artefacts_backbone import CT2_WEIGHTS
from espnet_lora_experts.whisper.description import (
    DESCRIPTION,
    read_description,
    read_json,
)

Facts = dict[str, Any]
ADAPTER, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
TYPES = {
    "single": "one LoRA for all languages: pooled, distilled or merged",
    "experts": "a LoRA for each language, which must be given",
    "mole": "LoRA MoLE: fused experts, which find the language",
    "full": "a Whisper that was fine-tuned as a whole",
    "vanilla": "Whisper as it came",
    "two_pass": "vanilla finds the language, then its expert transcribes",
}
PEFT_FACTS = ("r", "lora_alpha", "use_rslora", "use_dora", "rank_pattern")
ROW = ("size", *PEFT_FACTS, "target_modules", "parameters", "bytes", "dtype")
"""What a system tells of each expert."""


def describe(path: Path) -> Facts:
    """What an artefact is, its ``kind`` first.

    Raises:
        FileNotFoundError: There is nothing.
        ValueError: It is no model, or broken.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} must be a folder or a file, but is not there")
    for fits, read in KINDS:
        if fits(path):
            return _checked(read, path)
    raise ValueError(
        f"{path} must be a model, but is none: a system has {DESCRIPTION}, a folder of "
        f"systems */{DESCRIPTION}, a PEFT adapter {ADAPTER}, a Whisper config.json and "
        f"model.safetensors (Hugging Face) or {CT2_WEIGHTS} (CTranslate2), or is a "
        "ggml file; ESPnet's trainings have *.pth, its packed models are .zip"
    )


def _checked(read: Callable[[Path], Facts], path: Path) -> Facts:
    try:
        return read(path)
    # Values of other types than their writers write, in files of strangers.
    except (TypeError, KeyError, AttributeError, IndexError, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(
            f"{path} must be as its kind of model is written, but is not: "
            f"{type(error).__name__}: {error}"
        ) from error


def system(path: Path) -> Facts:
    """A system's folder."""
    what = read_description(path)
    known = ("type", "languages", "backbone", "experts", "mole")
    experts = what.get("experts") or {}
    sha256 = what["backbone"]["sha256"]
    try:
        rows = [_expert_row(x, path / folder, sha256) for x, folder in experts.items()]
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"experts of {path / DESCRIPTION} must be there, but {error}"
        ) from error
    return {
        "kind": "system",
        "type": what["type"],
        "about": TYPES.get(what["type"], "unknown to this version"),
        "languages": what["languages"],
        "backbone": what["backbone"]["name"],
        "backbone_sha256": sha256,
        **{key: value for key, value in what.items() if key not in known},
        **what.get("mole", {}),
        "experts": rows,
        "decodes": _decodes(path),
    }


def _expert_row(name: str, folder: Path, sha256: str) -> Facts:
    facts = adapter(folder)
    row = {"name": name, **{k: v for k, v in facts.items() if k in ROW}}
    if facts["backbone_sha256"] not in (None, sha256):
        row["problem"] = f"is of the backbone {facts['backbone_sha256'][:12]}"
    return row


def _decodes(path: Path) -> list[Facts]:
    """Test sets that were decoded, with what scoring said of their mode."""
    results = path.parent / "results.json"
    scored = read_json(results)["systems"] if results.is_file() else {}
    rows = []
    for done in sorted(path.glob("decode_*/*/decode.json")):
        mode = done.parent.parent.name.removeprefix("decode_")
        scores = scored.get(path.name, {}).get(mode) or {}
        rows.append(
            {
                "mode": mode,
                "test_set": done.parent.name,
                "utterances": len((done.parent / "text").read_bytes().splitlines()),
                "rtf": read_json(done).get("rtf"),
                "wer": scores.get("avg_wer"),
                "lid_acc": scores.get("lid_acc"),
            }
        )
    return rows


def systems(path: Path) -> Facts:
    """A folder of systems, such as a recipe's ``exp``."""
    rows = []
    for file in sorted(path.glob(f"*/{DESCRIPTION}")):
        what, name = read_description(file.parent), file.parent.name
        scores = {row["mode"]: row["wer"] for row in _decodes(file.parent)}
        rows.append(
            {
                "name": name,
                "type": what["type"],
                "languages": what["languages"],
                "backbone": what["backbone"]["name"],
                "experts": len(what.get("experts") or {}),
                "steps": what.get("steps"),
                "trained_params": what.get("trained_params"),
                "deployed_params": what.get("deployed_params"),
                "wer_aware": scores.get("aware"),
                "wer_agnostic": scores.get("agnostic"),
            }
        )
    return {"kind": "systems", "systems": rows}


def adapter(path: Path) -> Facts:
    """A PEFT adapter's folder."""
    if not (path / ADAPTER).is_file():
        raise FileNotFoundError(
            f"{path} must be a PEFT adapter folder, but has no {ADAPTER}"
        )
    config = read_json(path / ADAPTER)
    shapes, metadata = headers.read_safetensors(path / ADAPTER_WEIGHTS)
    targets = config.get("target_modules")
    width = next((s[0][-1] for k, s in shapes.items() if _reads_width(k)), None)
    return {
        "kind": "PEFT adapter",
        "type": config.get("peft_type"),
        "backbone": config.get("base_model_name_or_path"),
        "backbone_sha256": metadata.get("backbone_sha256"),
        "size": headers.size_of({"d_model": width}),
        **{key: config[key] for key in PEFT_FACTS if config.get(key)},
        "target_modules": sorted(targets) if isinstance(targets, list) else targets,
        "parameters": headers.count(shapes),
        "bytes": (path / ADAPTER_WEIGHTS).stat().st_size,
        "dtype": headers.types(shapes),
    }


def _reads_width(key: str) -> bool:
    return bool(re.search(r"([qkv]_proj|fc1)\.lora_A", key))


def _is_packed(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return artefacts_espnet.META in archive.namelist()
    except artefacts_espnet.BROKEN_ZIP:
        return False


def _has(*patterns: str) -> Callable[[Path], bool]:
    return lambda path: path.is_dir() and all(any(path.glob(p)) for p in patterns)


KINDS: tuple[tuple[Callable[[Path], bool], Callable[[Path], Facts]], ...] = (
    (_has(DESCRIPTION), system),
    (_has(ADAPTER), adapter),
    (_has(f"*/{DESCRIPTION}"), systems),
    (_has("config.json", "model*.safetensors"), artefacts_backbone.whisper),
    (_has(CT2_WEIGHTS), artefacts_backbone.ct2),
    (_has("*.pth"), artefacts_espnet.training),
    (_is_packed, artefacts_espnet.packed),
    (lambda path: path.suffix == ".pth", artefacts_espnet.checkpoint),
    (
        lambda path: path.is_file() and path.suffix in (".bin", ".ggml"),
        artefacts_backbone.ggml,
    ),
)
"""Which artefact is which, the first that fits; and how it is read."""
