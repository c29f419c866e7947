"""Whisper's log-mel features at natural length, on the device, for a batch.

Names of dimensions: B batch, S samples, T mel frames, M mel bins.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from transformers.audio_utils import mel_filter_bank

from espnet_lora_experts.whisper.audio import SAMPLE_RATE

N_FFT = 400
HOP = 160
FRAME_PAIR = 2 * HOP  # samples behind one encoder position
MAX_SAMPLES = 30 * SAMPLE_RATE
MARGIN = 64 * HOP
"""Zero samples after each utterance: the silence in which Whisper learnt to end."""


def stack(
    clips: Sequence[np.ndarray], device: torch.device | str
) -> tuple[Tensor, Tensor]:
    """Clips as one batch, ``speech_BS`` with zeros after each, and ``lengths_B``."""
    lengths_B = torch.tensor([len(clip) for clip in clips], device=device)
    speech_BS = torch.zeros(len(clips), int(lengths_B.max()), device=device)
    for row_S, clip in zip(speech_BS, clips, strict=True):
        row_S[: len(clip)] = torch.from_numpy(clip)
    return speech_BS, lengths_B


class LogMel(nn.Module):
    """The features of ``WhisperFeatureExtractor``, without its padding to 30 s.

    Each utterance is followed by :data:`MARGIN` zero samples, and its maximum is its
    own, so that its features do not depend on the batch it is in.

    Args:
        n_mels: Number of mel bins: ``num_mel_bins`` of the backbone's config.
    """

    def __init__(self, n_mels: int):
        super().__init__()
        filters = mel_filter_bank(
            num_frequency_bins=1 + N_FFT // 2,
            num_mel_filters=n_mels,
            min_frequency=0.0,
            max_frequency=SAMPLE_RATE / 2,
            sampling_rate=SAMPLE_RATE,
            norm="slaney",
            mel_scale="slaney",
        )
        self.register_buffer("filters_FM", torch.tensor(filters).float(), False)
        self.register_buffer("window", torch.hann_window(N_FFT), False)

    def forward(
        self, speech_BS: Tensor, speech_lengths: Tensor, pad_to_30s: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Computes features.

        Args:
            speech_BS: Waveforms in [-1, 1] at 16 kHz, (B, S); anything after an
                utterance's length is ignored.
            speech_lengths: Samples of each, (B,), at most 30 s.
            pad_to_30s: Give every utterance 30 s, as Whisper was trained.

        Returns:
            ``mel_BTM`` and its lengths in frames, (B,), an even number for each.

        Raises:
            ValueError: An utterance is empty or longer than 30 s.
        """
        samples_B = self._padded_lengths(speech_lengths, pad_to_30s)
        longest = int(samples_B.max())
        speech_BS = speech_BS[:, :longest].float()
        index_S = torch.arange(speech_BS.shape[1], device=speech_BS.device)
        speech_BS = speech_BS.masked_fill(index_S >= speech_lengths[:, None], 0.0)
        speech_BS = nn.functional.pad(speech_BS, (0, longest - speech_BS.shape[1]))
        with torch.autocast(speech_BS.device.type, enabled=False):
            return self._log_mel(speech_BS), samples_B // HOP

    def _padded_lengths(self, speech_lengths: Tensor, pad_to_30s: bool) -> Tensor:
        shortest, longest = int(speech_lengths.min()), int(speech_lengths.max())
        if shortest < 1 or longest > MAX_SAMPLES:
            raise ValueError(
                f"speech must have 1 to {MAX_SAMPLES} samples (30 s at 16 kHz), but "
                f"got lengths from {shortest} to {longest}; split or drop such ones"
            )
        if pad_to_30s:
            return torch.full_like(speech_lengths, MAX_SAMPLES)
        padded = (speech_lengths + MARGIN + FRAME_PAIR - 1) // FRAME_PAIR * FRAME_PAIR
        return padded.clamp(max=MAX_SAMPLES)

    def _log_mel(self, speech_BS: Tensor) -> Tensor:
        spectrum_BFT = torch.stft(
            speech_BS, N_FFT, HOP, window=self.window, return_complex=True
        )[..., :-1]
        power_BTF = spectrum_BFT.abs().square().transpose(1, 2)
        log_BTM = (power_BTF @ self.filters_FM).clamp(min=1e-10).log10()
        floor_B11 = log_BTM.amax(dim=(1, 2), keepdim=True) - 8.0
        return (torch.maximum(log_BTM, floor_B11) + 4.0) / 4.0
