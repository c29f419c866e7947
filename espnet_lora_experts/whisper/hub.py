"""From a name to a local Whisper folder: a folder, a hub id, or pinned packages.

``resolve`` asks, in this order: the path itself, Hugging Face's cache, our own cache
of what was converted, the hub, the packages of :mod:`.packages`. What is cached needs
no network; an unreachable hub is noticed in seconds, see :mod:`.snapshot`.
"""

import hashlib
import logging
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from espnet_lora_experts import atomic
from espnet_lora_experts.whisper import snapshot
from espnet_lora_experts.whisper.convert_local import (
    TOKENIZER,
    content_hash,
    convert,
    is_foreign,
)
from espnet_lora_experts.whisper.description import read_json
from espnet_lora_experts.whisper.packages import FALLBACKS, Unavailable, build

logger = logging.getLogger(__name__)

CACHE_VARIABLE = "ESPNET_LORA_EXPERTS_CACHE"
# Not "*.safetensors": some repositories hold the same weights twice.
PATTERNS = ["*.json", "*.txt", "model.safetensors", "model-*.safetensors"]
INDEX = "model.safetensors.index.json"
CONFIGS = ("config.json", "generation_config.json")
FEATURES = "preprocessor_config.json"
TEXTS = (FEATURES, "processor_config.json", *TOKENIZER)
"""What says how speech comes in and text goes out."""
RELATIVE = "openai/whisper-tiny"  # lends its tokenizer
# Each line: alternatives, one of which must be complete.
REQUIRED = (
    (("config.json",),),
    (("model.safetensors",), (INDEX,)),
    (("tokenizer.json",), ("vocab.json", "merges.txt")),
)


def resolve(name: str, download_dir: Path | None = None) -> Path:
    """Return a local folder with a Whisper in Hugging Face's layout.

    Args:
        name: A folder, a hub id such as ``openai/whisper-tiny``, a whisper.cpp file,
            or a folder of faster-whisper (CTranslate2).
        download_dir: Folder where the fallback's package files may already be; those
            missing are downloaded.

    Returns:
        The folder, with config, safetensors and tokenizer files. Hub weights keep
        their type: load with ``dtype=torch.float32``.

    Raises:
        FileNotFoundError: If the local folder lacks a file, or if no source has the
            model; the message lists what was tried.
        ValueError: If a package's hash is not the pinned one, or a file is broken.

    Example:
        >>> resolve("openai/whisper-tiny").name  # doctest: +SKIP
        'openai--whisper-tiny'
    """
    path = Path(name).expanduser()
    if is_foreign(path):
        return _converted(path, download_dir)
    if path.is_dir():
        return _check_folder(path)
    tried = [f"local folder: {path} does not exist"]
    for source in (_hub_cache, _own_cache, _hub, _packages):
        try:
            return source(name, download_dir)
        except Unavailable as reason:
            tried.append(str(reason))
    raise FileNotFoundError(
        f"Whisper model must be a local folder, a reachable hub id or a known "
        f"fallback, but got {name!r}. Tried:\n  " + "\n  ".join(tried) + "\n"
        f"known: fallbacks {', '.join(FALLBACKS)}"
    )


def weights_sha256(model: torch.nn.Module) -> str:
    """Hash a model's parameters, whatever file or type they came from.

    sha256 over every parameter in order of its name: the name, the shape, and the
    values as float32. A tied parameter (Whisper's ``proj_out``) counts once.

    Args:
        model: Any module, on any device.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        values = parameter.detach().to("cpu", torch.float32).flatten()
        digest.update(f"{name} {tuple(parameter.shape)}\n".encode())
        digest.update(values.numpy().data)
    return digest.hexdigest()


def missing_files(folder: Path) -> list[str]:
    """Return what a folder lacks to be a Whisper's, alternatives joined by "or"."""
    lacking = [
        " or ".join(" + ".join(names) for names in choices)
        for choices in REQUIRED
        if not any(all((folder / n).is_file() for n in names) for names in choices)
    ]
    shards = [path for path in weight_files(folder) if not path.is_file()]
    return lacking + [path.name for path in shards]


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder's Whisper, as transformers chooses them."""
    whole, index = folder / "model.safetensors", folder / INDEX
    if whole.is_file():
        return [whole]
    shards = read_json(index)["weight_map"].values() if index.is_file() else ()
    return [folder / name for name in sorted(set(shards))]


def copy_texts(source: Path, folder: Path) -> None:
    """Copies a Whisper's tokenizer and feature extractor, as far as they are there."""
    for name in TEXTS:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)


def copy_whisper(source: Path, folder: Path) -> None:
    """Copies a Whisper's weights, configurations and texts, and nothing else."""
    copy_texts(source, folder)
    configs = [source / name for name in (*CONFIGS, INDEX)]
    for path in (*filter(Path.is_file, configs), *weight_files(source)):
        shutil.copyfile(path, folder / path.name)


def _check_folder(folder: Path) -> Path:
    lacking = missing_files(folder)
    if lacking:
        raise FileNotFoundError(
            f"Whisper folder {folder} must have {', '.join(lacking)}, but got "
            f"none; known: {sorted(p.name for p in folder.iterdir())}"
        )
    return folder


def _hub_cache(name: str, download_dir: Path | None) -> Path:
    folder = snapshot.cached(name, PATTERNS)
    lacking = missing_files(folder)
    if lacking:
        raise Unavailable(f"hub cache: the snapshot lacks {', '.join(lacking)}")
    return folder


def _hub(name: str, download_dir: Path | None) -> Path:
    return _check_folder(snapshot.download(name, PATTERNS))


def _own_cache(name: str, download_dir: Path | None) -> Path:
    folder = _cache_folder(name)
    if missing_files(folder):
        raise Unavailable(f"own cache: {folder} is not there")
    return folder


def _packages(name: str, download_dir: Path | None) -> Path:
    if name not in FALLBACKS:
        raise Unavailable(f"registry packages: none is known for {name}")
    return _cached(name, lambda out: build(FALLBACKS[name], out, download_dir))


def _converted(source: Path, download_dir: Path | None) -> Path:
    name = f"{source.resolve().name}-{content_hash(source)[:16]}"
    relative = partial(resolve, RELATIVE, download_dir)
    return _cached(name, lambda out: convert(source, out, relative))


def _cached(name: str, fill: Callable[[Path], None]) -> Path:
    """A folder of our cache, filled where it is not there: all or nothing."""
    folder = _cache_folder(name)
    with atomic.alone(folder):
        if missing_files(folder):  # else another process was first
            with atomic.folder(folder) as out:
                fill(out)
            logger.info("converted %s into %s", name, folder)
    return folder


def _cache_folder(name: str) -> Path:
    default = Path.home() / ".cache" / "espnet_lora_experts"
    cache = Path(os.environ.get(CACHE_VARIABLE) or default).expanduser()
    return cache / name.replace("/", "--")
