"""ESPnet's frontend, encoder and decoder, three views on one Whisper in memory.

``ASRTask.build_model`` builds the three apart, in this order. The first view loads the
backbone, the decoder is the last to take it.
"""

from __future__ import annotations

import torch
from espnet2.asr.decoder.abs_decoder import AbsDecoder
from espnet2.asr.encoder.abs_encoder import AbsEncoder
from espnet2.asr.frontend.abs_frontend import AbsFrontend
from torch import Tensor

from espnet_lora_experts.whisper.backbone import Backbone
from espnet_lora_experts.whisper.systems import Encoded, System, decode, encode

_waiting: dict[str, Backbone] = {}


class LogMelFrontend(AbsFrontend):
    """Whisper's log-mel features at natural length, (B, T, M).

    Args:
        backbone: Hub id or folder.
        checkpointing: Recompute layers in the backward pass to save memory.
    """

    def __init__(self, backbone: str, checkpointing: bool = False):
        super().__init__()
        whisper = Backbone.from_pretrained(backbone, checkpointing=checkpointing)
        _waiting[backbone] = whisper
        self.log_mel = whisper.log_mel

    def output_size(self) -> int:
        """Number of mel bins."""
        return self.log_mel.filters_FM.shape[1]

    def forward(
        self, input: Tensor, input_lengths: Tensor, pad_to_30s: bool = False
    ) -> tuple[Tensor, Tensor]:
        """See :class:`~.whisper.features.LogMel`."""
        return self.log_mel(input, input_lengths, pad_to_30s)


class LoraExpertEncoder(AbsEncoder):
    """Whisper's encoder under a system's gates; the owner of the backbone.

    Args:
        input_size: Number of mel bins.
        backbone: Hub id or folder, the frontend's.
    """

    def __init__(self, input_size: int, backbone: str):
        super().__init__()
        self.backbone = _waiting[backbone]
        self.system: System = System([])

    def output_size(self) -> int:
        """Width of the encoder."""
        return self.backbone.config.d_model

    def forward(self, xs_pad: Tensor, ilens: Tensor, prev_states: Tensor | None = None):
        """ESPnet's contract, language-agnostic: states, their lengths, None."""
        encoded = encode(self.backbone, self.system, xs_pad, ilens)
        return encoded.hidden_BPD, encoded.valid_BP.sum(dim=1), None


class LoraExpertDecoder(AbsDecoder):
    """Whisper's decoder under a system's gates.

    Args:
        vocab_size: Size of the vocabulary.
        encoder_output_size: Width of the encoder.
        backbone: Hub id or folder, the frontend's.
    """

    def __init__(self, vocab_size: int, encoder_output_size: int, backbone: str):
        super().__init__()
        whisper = _waiting.pop(backbone)
        object.__setattr__(self, "backbone", whisper)  # the encoder owns it
        self.system: System = System([])
        if vocab_size != whisper.config.vocab_size:
            raise ValueError(
                f"token_list must hold the {whisper.config.vocab_size} tokens of "
                f"{backbone}, but got {vocab_size}; run stage 3 again"
            )

    def forward(self, hs_pad, hlens, ys_in_pad, ys_in_lens):
        """ESPnet's contract: scores of the next tokens (B, U, K), their lengths."""
        valid_BP = torch.arange(hs_pad.shape[1], device=hs_pad.device) < hlens[:, None]
        encoded = Encoded(hs_pad, valid_BP, None)
        y_BUD = decode(self.backbone, self.system, encoded, ys_in_pad)
        return self.backbone.logits(y_BUD), ys_in_lens
