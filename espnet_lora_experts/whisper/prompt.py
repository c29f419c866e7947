"""Text to Whisper's tokens and back, with the prompt that names language and task."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property

from transformers import WhisperTokenizerFast

from espnet_lora_experts.whisper import languages

SOT, EOT = "<|startoftranscript|>", "<|endoftext|>"
TRANSCRIBE, NO_TIMESTAMPS = "<|transcribe|>", "<|notimestamps|>"
PROMPT_LENGTH = 4
"""``<|startoftranscript|><|language|><|transcribe|><|notimestamps|>``."""


class Prompter:
    """Whisper's tokenizer and prompt; every id comes from the vocabulary.

    Args:
        folder: A backbone folder (see :func:`~.hub.resolve`) with tokenizer files.
    """

    def __init__(self, folder: str | os.PathLike):
        self.tokenizer = WhisperTokenizerFast.from_pretrained(
            str(folder), clean_up_tokenization_spaces=False
        )
        self.vocab: dict[str, int] = self.tokenizer.get_vocab()

    @cached_property
    def sot(self) -> int:
        """Id of the start of transcript."""
        return self.vocab[SOT]

    @cached_property
    def eot(self) -> int:
        """Id of the end of text."""
        return self.vocab[EOT]

    @cached_property
    def task(self) -> list[int]:
        """Ids of the task and of "no timestamps"."""
        return [self.vocab[TRANSCRIBE], self.vocab[NO_TIMESTAMPS]]

    def language(self, code: str) -> int:
        """Id of a language's token, or of its parent's where this Whisper lacks it."""
        return languages.token_id(code, self.vocab)

    def prompt(self, code: str) -> list[int]:
        """The four ids before the text."""
        return [self.sot, self.language(code), *self.task]

    def encode(self, text: str, code: str) -> list[int]:
        """Ids of a transcript, which starts with a space where words have spaces."""
        text = text.strip()
        spaced = languages.get(code).metric == "wer"
        text = f" {text}" if spaced and text else text
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def decode(self, ids: Sequence[int]) -> str:
        """Transcript of ids, special tokens left out."""
        return self.tokenizer.decode(ids, skip_special_tokens=True).strip()

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """The vocabulary's strings of ids."""
        return self.tokenizer.convert_ids_to_tokens(ids)

    def token_list(self, size: int = 0) -> list[str]:
        """The full vocabulary, line n is id n, specials included.

        Args:
            size: Of the model's vocabulary: ids that the tokenizer has no string for
                get a placeholder.
        """
        tokens = [
            token for token, _ in sorted(self.vocab.items(), key=lambda kv: kv[1])
        ]
        return tokens + [f"<|unused{i}|>" for i in range(len(tokens), size)]
