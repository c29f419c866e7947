"""ESPnet's frontend, encoder and decoder, three views on one Whisper in memory.

``ASRTask.build_model`` builds the three apart, in this order. The first view loads the
backbone, the decoder is the last to take it.
"""

from __future__ import annotations

from typing import Any

import torch
from espnet2.asr.decoder.abs_decoder import AbsDecoder
from espnet2.asr.decoder.whisper_decoder import (
    BatchScorerInterface,  # its own module is another one in ESPnet 202611
)
from espnet2.asr.encoder.abs_encoder import AbsEncoder
from espnet2.asr.frontend.abs_frontend import AbsFrontend
from humanfriendly import parse_size
from torch import Tensor

from espnet_lora_experts.whisper.audio import SAMPLE_RATE
from espnet_lora_experts.whisper.backbone import Backbone
from espnet_lora_experts.whisper.route import Route
from espnet_lora_experts.whisper.stepper import Stepper
from espnet_lora_experts.whisper.systems import (
    Encoded,
    System,
    decode,
    encode,
)

_waiting: dict[str, Backbone] = {}


class LogMelFrontend(AbsFrontend):
    """Whisper's log-mel features at natural length, (B, T, M).

    Args:
        backbone: Hub id or folder.
        checkpointing: Recompute layers in the backward pass to save memory.
        fs: Sampling rate of the speech, as ``asr.sh`` gives it; must be 16k.

    Raises:
        ValueError: Another sampling rate.
    """

    def __init__(
        self, backbone: str, checkpointing: bool = False, fs: int | str = "16k"
    ):
        super().__init__()
        if parse_size(str(fs)) != SAMPLE_RATE:
            raise ValueError(
                f"fs must be 16k, Whisper's sampling rate, but got {fs}; give asr.sh "
                "--fs 16k"
            )
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


class LoraExpertDecoder(AbsDecoder, BatchScorerInterface):
    """Whisper's decoder under a system's gates; for ESPnet's beam search, a scorer.

    As a scorer it computes each token once. The states of :meth:`score` are a
    hypothesis' own keys and values; those of :meth:`batch_score` are its place among
    the keys and values of all hypotheses, and must be used for the next token only, as
    ESPnet's searches do.

    Args:
        vocab_size: Size of the vocabulary.
        encoder_output_size: Width of the encoder.
        backbone: Hub id or folder, the frontend's.

    Attributes:
        route: As a scorer, the language of the utterance, where the gates need it.
    """

    def __init__(self, vocab_size: int, encoder_output_size: int, backbone: str):
        super().__init__()
        whisper = _waiting.pop(backbone)
        object.__setattr__(self, "backbone", whisper)  # the encoder owns it
        self.system: System = System([])
        self.route: Route | None = None
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

    @torch.no_grad()
    def score(self, ys: Tensor, state: Stepper | None, x: Tensor):
        """ESPnet's contract for one hypothesis.

        Args:
            ys: Its tokens, (U,).
            state: What was returned for the tokens before the last, or None.
            x: Encoder states of the utterance, (P, D).

        Returns:
            Log probabilities of the next token, (K,), and the new state.
        """
        if state is None:
            state = self._stepper(x)
            return state.prompt(ys[None])[0].log_softmax(dim=-1), state
        if self._is_full(state):
            return self._end(ys[None])[0], state
        state = state.fork()
        return state.step(ys[None, -1:])[0, 0].log_softmax(dim=-1), state

    @torch.no_grad()
    def batch_score(self, ys: Tensor, states: list[Any], xs: Tensor):
        """ESPnet's contract for all hypotheses of one utterance.

        Args:
            ys: Their tokens, (Q, U).
            states: Q of what was returned for the tokens before the last, or of None.
            xs: Encoder states, the same utterance's in every row, (Q, P, D).

        Returns:
            Log probabilities of the next token, (Q, K), and the Q new states.
        """
        if states[0] is None:
            stepper = self._stepper(xs[0])
            logits_QK = stepper.prompt(ys[:1]).expand(len(ys), -1)
        else:
            stepper, _, length = states[0]
            if length != stepper.length:
                raise ValueError(
                    f"states must be of the last token ({stepper.length}), but got "
                    f"those of token {length}; a search that goes back needs score()"
                )
            if self._is_full(stepper):
                return self._end(ys), states
            stepper.widen(len(ys))
            places = [place for _, place, _ in states]
            parents = places + [0] * (stepper.beam - len(places))
            stepper.follow(torch.tensor([parents], device=ys.device))
            logits_QK = stepper.step(ys[None, :, -1])[0]
        new = [(stepper, q, stepper.length) for q in range(len(ys))]
        return logits_QK.log_softmax(dim=-1), new

    def _is_full(self, stepper: Stepper) -> bool:
        return stepper.length >= self.backbone.config.max_target_positions

    def _end(self, ys: Tensor) -> Tensor:
        """What comes when there are no more positions: the end, for certain, (Q, K)."""
        size = self.backbone.config.vocab_size
        log_p_QK = torch.full((len(ys), size), float("-inf"), device=ys.device)
        log_p_QK[:, self.backbone.config.eos_token_id] = 0.0
        return log_p_QK

    def _stepper(self, x_PD: Tensor) -> Stepper:
        valid_BP = torch.ones(1, len(x_PD), dtype=torch.bool, device=x_PD.device)
        encoded = Encoded(x_PD[None], valid_BP, self.route)
        return Stepper(self.backbone, self.system, encoded)
