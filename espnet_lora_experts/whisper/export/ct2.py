"""Writer of the folder that CTranslate2 and faster-whisper read.

CTranslate2's own converter does the work, from a Hugging Face folder.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from espnet_lora_experts.whisper import hub
from espnet_lora_experts.whisper.export import huggingface
from espnet_lora_experts.whisper.export.folded import Folded

COPIED = ["tokenizer.json", hub.FEATURES]
"""What faster-whisper reads beside the model."""


def check(quantization: str) -> None:
    """Checks that CTranslate2 is there and knows a type of weights.

    Raises:
        ValueError: It is not installed, or does not.
    """
    known = _library().specs.model_spec.ACCEPTED_MODEL_TYPES
    if quantization not in known:
        raise ValueError(
            f"--quantization must be one of {known}, but got {quantization!r}"
        )


def write(folder: Path, folded: Folded, quantization: str) -> None:
    """Writes the model, its vocabulary, the tokenizer and the feature extractor.

    Args:
        folder: An empty folder.
        folded: The Whisper.
        quantization: Type of the weights, by CTranslate2's names.
    """
    library = _library()
    with tempfile.TemporaryDirectory(dir=folder.parent) as temp:
        huggingface.write(Path(temp), folded)
        converter = library.converters.TransformersConverter(temp, copy_files=COPIED)
        converter.convert(str(folder), quantization=quantization, force=True)


def _library():
    try:
        import ctranslate2
    except ImportError as error:
        raise ValueError(
            "ctranslate2 must be installed to export to it, but is not: pip install "
            "'espnet_lora_experts[export]'"
        ) from error
    return ctranslate2
