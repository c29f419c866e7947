"""Texts as Whisper's authors score them, to compare with rates that others published.

Their normaliser replaces combining marks by spaces, which cuts words of Hindi, Thai and
other languages into pieces, so no rate of these means much (see :mod:`.languages` for
ours).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from espnet_lora_experts.whisper import languages
from espnet_lora_experts.whisper.description import read_json

logger = logging.getLogger(__name__)


def normalizer(spellings: Mapping[str, str]) -> Callable[[str, str], str]:
    """Whisper's normaliser, from text and language code to text.

    English has one of its own, which also writes numbers in digits, contractions in
    full and British words in the American way. Where the language is scored by CER,
    there are no spaces, as if each letter were a word.

    Source: Appendix C of "Robust Speech Recognition via Large-Scale Weak Supervision"
    (arXiv 2212.04356), in the code of transformers.

    Args:
        spellings: American by British spelling, see :func:`spellings`.
    """
    from transformers.models.whisper import english_normalizer

    basic = english_normalizer.BasicTextNormalizer()
    english = english_normalizer.EnglishTextNormalizer(dict(spellings))

    def normalize(text: str, code: str) -> str:
        words = (english if code == "en" else basic)(text).split()
        return ("" if languages.get(code).metric == "cer" else " ").join(words)

    return normalize


def spellings(backbone: str) -> dict[str, Any]:
    """American by British spelling, from a backbone's ``normalizer.json``.

    Args:
        backbone: Hub id, folder or file, as for
            :func:`~espnet_lora_experts.whisper.hub.resolve`.

    Returns:
        {} with a warning where the backbone has no such file.
    """
    from espnet_lora_experts.whisper import hub

    path = hub.resolve(backbone) / "normalizer.json"
    if path.is_file():
        return read_json(path)
    logger.warning(
        f"{path} must list British spellings for Whisper's normaliser, but does not"
        " exist; they stay as they are"
    )
    return {}
