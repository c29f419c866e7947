"""Writer of a plain Hugging Face Whisper: transformers' own pipeline runs it."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from transformers import WhisperFeatureExtractor

from espnet_lora_experts.experts.store import write_tensors
from espnet_lora_experts.whisper import hub
from espnet_lora_experts.whisper.export.folded import Folded

WEIGHTS = "model.safetensors"


def write(folder: Path, folded: Folded, dtype: torch.dtype = torch.float32) -> None:
    """Writes weights, configurations, tokenizer and feature extractor.

    Args:
        folder: An empty folder.
        folded: The Whisper.
        dtype: Of the weights.
    """
    config = copy.deepcopy(folded.config)
    config.dtype = dtype
    config.save_pretrained(folder)
    folded.generation.save_pretrained(folder)
    write_texts(folder, folded)
    state = {name: tensor.to(dtype) for name, tensor in folded.state.items()}
    write_tensors(folder / WEIGHTS, state)


def write_texts(folder: Path, folded: Folded) -> None:
    """Writes the tokenizer and the feature extractor: the backbone's own, or new."""
    hub.copy_texts(folded.source, folder)
    if not (folder / "tokenizer.json").is_file():
        folded.prompter.tokenizer.save_pretrained(folder)
    if not (folder / hub.FEATURES).is_file():
        mels = folded.config.num_mel_bins
        WhisperFeatureExtractor(feature_size=mels).save_pretrained(folder)
