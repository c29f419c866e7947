"""A user's own whisper.cpp file or CTranslate2 folder becomes a Whisper folder.

A ggml file has no tokenizer that transformers can read, and CTranslate2's folders not
always. It is taken from beside the weights; else the Whispers before large-v3 share
one, which any of them can lend.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

from transformers import GenerationConfig, WhisperConfig

from espnet_lora_experts.experts.store import write_tensors
from espnet_lora_experts.whisper.convert import (
    TOKEN_IDS,
    StateDict,
    check_state_dict,
    config_of,
)
from espnet_lora_experts.whisper.convert_ct2 import read_ct2
from espnet_lora_experts.whisper.convert_ggml import ggml_to_state_dict
from espnet_lora_experts.whisper.description import read_json
from espnet_lora_experts.whisper.prompt import NO_TIMESTAMPS, Prompter

CT2_WEIGHTS = "model.bin"
SHARED_VOCABULARY = 51_865  # tokens of all multilingual Whispers before large-v3
TIMESTAMPS = 1501  # tokens after NO_TIMESTAMPS, which end the vocabulary
GENERATION = "generation_config.json"
TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "normalizer.json",
)


def is_foreign(path: Path) -> bool:
    """Whether a path is a file, which must be ggml's, or a folder of CTranslate2."""
    in_ct2 = (path / CT2_WEIGHTS).is_file()
    return path.is_file() or (in_ct2 and not any(path.glob("*.safetensors")))


def content_hash(source: Path) -> str:
    """Hash of the weights and of all files beside them that :func:`convert` reads."""
    digest = hashlib.sha256()
    folder = _folder(source)
    for name in ("config.json", GENERATION, *TOKENIZER):
        if (folder / name).is_file():
            digest.update(f"{name} {_hash(folder / name)}\n".encode())
    digest.update(_hash(folder / CT2_WEIGHTS if source.is_dir() else source).encode())
    return digest.hexdigest()


def convert(source: Path, out: Path, relative: Callable[[], Path]) -> None:
    """Writes config, float32 weights and tokenizer in Hugging Face's layout.

    Args:
        source: A whisper.cpp file, or a folder with CTranslate2's ``model.bin``.
        out: An empty folder.
        relative: Gives the folder of a multilingual Whisper before large-v3; asked
            where the source needs its tokenizer.

    Raises:
        ValueError: The weights are no float Whisper, or have no fitting tokenizer.
    """
    state, config = read_foreign(source)
    _copy_texts(source, config.vocab_size, out, relative)
    prompter = Prompter(out)
    ids = dict.fromkeys(TOKEN_IDS, prompter.eot)
    ids["decoder_start_token_id"] = prompter.sot
    config.update(ids)
    config.save_pretrained(out)
    if not (out / GENERATION).is_file():
        GenerationConfig(**_suppressed(source), **ids).save_pretrained(out)
    write_tensors(out / "model.safetensors", state)


def read_foreign(source: Path) -> tuple[StateDict, WhisperConfig]:
    """Weights and their configuration, which has no token ids yet.

    Raises:
        ValueError: See :func:`convert`; the message names the file.
    """
    try:
        return _read(source)
    except ValueError as error:
        raise ValueError(
            f"{source} must be a Whisper of whisper.cpp or CTranslate2 in f32 or f16, "
            f"but got: {error}"
        ) from error


def _read(source: Path) -> tuple[StateDict, WhisperConfig]:
    if source.is_dir():
        options, state = read_ct2(source / CT2_WEIGHTS)
        heads = options.get("encoder/num_heads", 0)
    else:
        sizes, state = ggml_to_state_dict(source)
        heads = sizes["encoder_attention_heads"]
    config = config_of(state, heads)
    check_state_dict(state, config)
    return state, config


def _copy_texts(source: Path, size: int, out: Path, relative) -> None:
    """Copies the tokenizer and the generation config, checked against the weights."""
    folder = _folder(source)
    named = [{"tokenizer.json"}, {"vocab.json", "merges.txt"}]
    if not any(all((folder / name).is_file() for name in names) for names in named):
        if size != SHARED_VOCABULARY:
            raise ValueError(
                f"{folder} must have the tokenizer.json of a Whisper with {size} "
                f"tokens for {source.name}, but has none; copy it from the model that "
                "the weights were made of"
            )
        folder = relative()
    for name in (GENERATION, *TOKENIZER):
        if (folder / name).is_file():
            (out / name).write_bytes((folder / name).read_bytes())
    last = Prompter(out).vocab.get(NO_TIMESTAMPS)
    if last is None or size - 1 - last not in (0, TIMESTAMPS):
        raise ValueError(
            f"tokenizer in {folder} must be that of the {size} tokens of {source}, but "
            f"its {NO_TIMESTAMPS} is {last}; copy it from the model that the weights "
            "were made of"
        )


def _suppressed(source: Path) -> dict[str, list[int]]:
    """Tokens that CTranslate2's config.json suppresses, by generation_config's keys."""
    path = source / "config.json"
    config = read_json(path) if path.is_file() else {}
    return {
        "suppress_tokens": config.get("suppress_ids", []),
        "begin_suppress_tokens": config.get("suppress_ids_begin", []),
    }


def _folder(source: Path) -> Path:
    return source if source.is_dir() else source.parent


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
