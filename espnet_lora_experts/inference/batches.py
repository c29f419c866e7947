"""How many clips the encoder and the decoder take at once."""

from __future__ import annotations

from collections.abc import Sequence

from espnet_lora_experts.whisper.audio import SAMPLE_RATE
from espnet_lora_experts.whisper.batching import batches
from espnet_lora_experts.whisper.features import FRAME_PAIR

ENCODER_BATCH = 5 * SAMPLE_RATE
"""Samples of speech that cost what a batch of the encoder costs by itself."""
DECODER_BATCH = 400 * SAMPLE_RATE
"""The same for the decoder, which reads its weights and the vocabulary's every step."""
MOST_ROWS = 64
"""Most clips that are decoded at once: beyond, a step costs more for each of them."""
MOST_KEYS = 2**28
"""Most numbers in the decoder's keys and values of the encoder: 1 GB in float32."""


def encoder_batches(lengths: Sequence[int], batch_seconds: float) -> list[list[int]]:
    """Clips of similar length, as many as fit into ``batch_seconds``.

    Args:
        lengths: Samples of each clip, what it is padded with included.
        batch_seconds: Most seconds of a padded batch.
    """
    most = batch_seconds * SAMPLE_RATE
    return batches(lengths, lambda n, longest: n * longest <= most, ENCODER_BATCH)


def decoder_batches(lengths: Sequence[int], config) -> list[list[int]]:
    """Clips whose transcripts grow together, step by step.

    Args:
        lengths: Samples of each clip, what it is padded with included.
        config: Of the backbone.
    """
    keys = 2 * config.decoder_layers * config.d_model / FRAME_PAIR
    return batches(
        lengths,
        lambda n, longest: n <= MOST_ROWS and n * longest * keys <= MOST_KEYS,
        DECODER_BATCH,
    )
