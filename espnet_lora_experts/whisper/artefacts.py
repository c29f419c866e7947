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

import yaml

from espnet_lora_experts.whisper import headers
from espnet_lora_experts.whisper.description import (
    DESCRIPTION,
    read_description,
    read_json,
)

Facts = dict[str, Any]
ADAPTER, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
CT2_WEIGHTS = "model.bin"
TOKENIZERS = ("tokenizer.json", "vocab.json")
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
WHISPER_FACTS = ("encoder_layers", "decoder_layers", "d_model", "num_mel_bins")


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
            return read(path)
    raise ValueError(
        f"{path} must be a model, but is none: a system has {DESCRIPTION}, a folder of "
        f"systems */{DESCRIPTION}, a PEFT adapter {ADAPTER}, a Whisper config.json and "
        f"model.safetensors (Hugging Face) or {CT2_WEIGHTS} (CTranslate2), or is a "
        "ggml file; ESPnet's trainings have *.pth, its packed models are .zip"
    )


def system(path: Path) -> Facts:
    """A system's folder."""
    what = read_description(path)
    known = ("type", "languages", "backbone", "experts", "mole")
    experts = what.get("experts") or {}
    sha256 = what["backbone"]["sha256"]
    rows = [_expert_row(x, path / folder, sha256) for x, folder in experts.items()]
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


def whisper(path: Path) -> Facts:
    """A Whisper in Hugging Face's layout."""
    config = read_json(path / "config.json")
    if config.get("model_type") != "whisper":
        raise ValueError(
            f"{path} must be a Whisper, but its model_type is "
            f"{config.get('model_type')!r}"
        )
    whole = path / "model.safetensors"  # some have shards of another type besides
    files = [whole] if whole.is_file() else sorted(path.glob("model-*.safetensors"))
    shapes: headers.Shapes = {}
    for file in files:
        shapes |= headers.read_safetensors(file)[0]
    facts = {key: config.get(key) for key in (*WHISPER_FACTS, "vocab_size")}
    return _backbone("Hugging Face Whisper", path, facts, shapes, files)


def ct2(path: Path) -> Facts:
    """A Whisper of CTranslate2, as faster-whisper has it."""
    shapes = headers.read_ct2(path / CT2_WEIGHTS)
    facts = headers.ct2_sizes(shapes)
    return _backbone("CTranslate2 Whisper", path, facts, shapes, [path / CT2_WEIGHTS])


def _backbone(kind, path, sizes, shapes, files) -> Facts:
    return {
        "kind": kind,
        "size": headers.size_of(sizes),
        **sizes,
        "parameters": headers.count(shapes),
        "dtype": headers.types(shapes),
        "bytes": sum(file.stat().st_size for file in files),
        "tokenizer": any((path / name).is_file() for name in TOKENIZERS),
    }


def ggml(path: Path) -> Facts:
    """A Whisper of whisper.cpp."""
    sizes = headers.read_ggml(path)
    return {
        "kind": "whisper.cpp Whisper",
        "size": headers.size_of(sizes),
        **{key: sizes[key] for key in (*WHISPER_FACTS, "vocab_size")},
        "dtype": sizes["type"],
        "bytes": path.stat().st_size,
    }


def training(path: Path) -> Facts:
    """A folder of ESPnet's trainer without a system's description."""
    files = [file for file in sorted(path.glob("*.pth")) if not file.is_symlink()]
    config = path / "config.yaml"
    said = _read_yaml(config) if config.is_file() else {}
    return {
        "kind": "ESPnet training",
        "model": said.get("model"),
        "backbone": said.get("backbone"),
        **(said.get("model_conf") or {}),
        "max_epoch": said.get("max_epoch"),
        "checkpoints": [
            {"name": file.name, "bytes": file.stat().st_size} for file in files
        ],
    }


def checkpoint(path: Path) -> Facts:
    """Trained tensors of an epoch."""
    import pickle

    import torch

    try:
        state = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"{path} must hold tensors only and be whole, but is not (ESPnet's "
            "checkpoint.pth is what training resumes from); inspect an epoch's .pth"
        ) from error
    sha256 = state.pop("backbone_sha256", None)
    shapes = {k: (tuple(v.shape), str(v.dtype)[6:]) for k, v in state.items()}
    found = [re.search(r"\.lora_A\.(?:expert_)?([^.]+)", key) for key in shapes]
    return {
        "kind": "ESPnet checkpoint",
        "backbone_sha256": bytes(sha256.tolist()).hex() if sha256 is not None else None,
        "experts": sorted({match[1] for match in found if match}),
        "tensors": len(shapes),
        "parameters": headers.count(shapes),
        "dtype": headers.types(shapes),
        "bytes": path.stat().st_size,
    }


def packed(path: Path) -> Facts:
    """A model packed by ``espnet2.bin.pack``."""
    with zipfile.ZipFile(path) as archive:
        meta = yaml.safe_load(archive.read("meta.yaml"))
        size = sum(info.file_size for info in archive.infolist())
    return {"kind": "ESPnet packed model", **meta, "bytes": size}


def _read_yaml(path: Path) -> Facts:
    """By libyaml where it is: ESPnet's config.yaml lists all tokens."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(path.read_text(encoding="utf-8"), loader)


def _is_packed(path: Path) -> bool:
    return zipfile.is_zipfile(path) and "meta.yaml" in zipfile.ZipFile(path).namelist()


def _has(*patterns: str) -> Callable[[Path], bool]:
    return lambda path: path.is_dir() and all(any(path.glob(p)) for p in patterns)


KINDS: tuple[tuple[Callable[[Path], bool], Callable[[Path], Facts]], ...] = (
    (_has(DESCRIPTION), system),
    (_has(ADAPTER), adapter),
    (_has(f"*/{DESCRIPTION}"), systems),
    (_has("config.json", "model*.safetensors"), whisper),
    (_has(CT2_WEIGHTS), ct2),
    (_has("*.pth"), training),
    (_is_packed, packed),
    (lambda path: path.suffix == ".pth", checkpoint),
    (lambda path: path.is_file() and path.suffix in (".bin", ".ggml"), ggml),
)
"""Which artefact is which, the first that fits; and how it is read."""
