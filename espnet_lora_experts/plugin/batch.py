"""A batch as the models need it, made of what ESPnet collates; what it must hold.

Names of dimensions: B batch, S samples, T mel frames, M mel bins, U text positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from espnet_lora_experts.whisper.prompt import PROMPT_LENGTH


@dataclass(frozen=True)
class Batch:
    """A batch as the models need it.

    Attributes:
        mel_BTM: Log-mel features.
        frames_B: Their lengths.
        ids_BU: Decoder input: prompt and text.
        targets_BU: The token after each input token.
        text_BU: True where the target is text or its end; False in the prompt.
        langs: Language of each row.
    """

    mel_BTM: Tensor
    frames_B: Tensor
    ids_BU: Tensor
    targets_BU: Tensor
    text_BU: Tensor
    langs: list[str]

    def counted(self, language: bool) -> Tensor:
        """Positions that the recognition loss counts, (B, U).

        Args:
            language: Count the language's token beside text and end.
        """
        counted_BU = self.text_BU.clone()
        counted_BU[:, 0] = language
        return counted_BU


def sort_rows(
    langs: list[str], *given: Tensor
) -> tuple[list[str], *tuple[Tensor, ...]]:
    """Rows of one language as neighbours: an expert's product is then one call.

    Args:
        langs: Language of each row.
        given: What else has a row for each.
    """
    if langs == sorted(langs):
        return langs, *given
    order = sorted(range(len(langs)), key=langs.__getitem__)
    return [langs[i] for i in order], *(rows[order] for rows in given)


def shift(
    text_BU: Tensor, lengths_B: Tensor, eos: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The decoder's input, its targets and where they are text: see :class:`Batch`.

    Args:
        text_BU: Prompt and text ids, padded with anything.
        lengths_B: Tokens of each row.
        eos: The end token, the last target of each row.
    """
    text_BU = text_BU[:, : lengths_B.max()]
    own_BU = torch.arange(text_BU.shape[1], device=text_BU.device) < lengths_B[:, None]
    ids_BU = text_BU.masked_fill(~own_BU, eos)
    end_B1 = ids_BU.new_full((len(ids_BU), 1), eos)
    targets_BU = torch.cat([ids_BU[:, 1:], end_B1], dim=1)
    own_BU[:, : PROMPT_LENGTH - 1] = False
    return ids_BU, targets_BU, own_BU


def require_positions(
    lengths: list[int], positions: int, utts: Sequence[str] | None
) -> None:
    """Checks that every row has its prompt, and no more tokens than can be decoded.

    Args:
        lengths: Tokens of each row, prompt included.
        positions: The decoder's.
        utts: Name of each row, if known.

    Raises:
        ValueError: One has fewer or more; it is named.
    """
    tokens, least = max(lengths), min(lengths)
    if least < PROMPT_LENGTH:  # its losses would be 0, and count in the means
        row = lengths.index(least)
        raise ValueError(
            f"utterance {utts[row] if utts else row} must have a prompt of "
            f"{PROMPT_LENGTH} tokens, or no position has a target, but has {least} "
            "tokens; its text must come from WhisperPreprocessor"
        )
    if tokens > positions:
        row = lengths.index(tokens)
        raise ValueError(
            f"utterance {utts[row] if utts else row} must have at most {positions} "
            f"tokens, the decoder's positions, but has {tokens} with its prompt; "
            "split it or take it out (--iterator_type task leaves it out)"
        )


def require_targets(langs: Sequence[str], targets: Sequence[str]) -> None:
    """Checks that every row's language is a target.

    Raises:
        ValueError: One is not; it is named.
    """
    unknown = sorted(set(langs) - set(targets))
    if unknown:
        raise ValueError(
            f"languages must be of {targets}, but the batch has {unknown}; "
            "give them in --langs or take these utterances out"
        )
