"""One frozen Whisper, layer by layer and at natural length, with a bank of experts.

Transformers' ``WhisperEncoder.forward`` takes 30 s only and ignores its mask, so its
*layers* are called here, each under its own gate.

Names of dimensions: B batch, T mel frames, M mel bins, P encoder positions (T / 2),
U text positions, D width, K vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import WhisperForConditionalGeneration

from espnet_lora_experts.experts.bank import ExpertBank
from espnet_lora_experts.experts.gate import Gate
from espnet_lora_experts.experts.layer import FrozenLinear
from espnet_lora_experts.experts.product import cast_once, linear
from espnet_lora_experts.whisper import attention, hub
from espnet_lora_experts.whisper.features import LogMel
from espnet_lora_experts.whisper.soundness import check_whisper
from espnet_lora_experts.whisper.vocabulary import Losses, over_vocabulary


class Backbone(nn.Module):
    """Whisper of any size, frozen, with an :class:`ExpertBank` in its linear layers.

    Args:
        hf: The model from transformers; its parameters are frozen.
        name: Hub id or folder it came from, for the record.
        sha256: Hash of its weights; computed when not given.
        checkpointing: Recompute each layer in the backward pass to save memory.

    Example:
        >>> from transformers import WhisperConfig, WhisperForConditionalGeneration
        >>> config = WhisperConfig(
        ...     d_model=16, encoder_layers=1, decoder_layers=1, vocab_size=32,
        ...     encoder_attention_heads=2, decoder_attention_heads=2,
        ...     pad_token_id=0, bos_token_id=1, eos_token_id=2,
        ...     decoder_start_token_id=3, suppress_tokens=None,
        ...     begin_suppress_tokens=None)
        >>> backbone = Backbone(WhisperForConditionalGeneration(config))
        >>> mel_BTM, frames_B = torch.zeros(2, 40, 80), torch.tensor([40, 20])
        >>> x_BPD, valid_BP = backbone.embed(mel_BTM, frames_B)
        >>> backbone.encode_layer(0, x_BPD, valid_BP, gate=()).shape
        torch.Size([2, 20, 16])
    """

    def __init__(
        self,
        hf: WhisperForConditionalGeneration,
        name: str = "",
        sha256: str | None = None,
        checkpointing: bool = False,
    ):
        super().__init__()
        self.hf = hf.eval()
        hf.set_attn_implementation(attention.NAME)
        for module in hf.modules():
            if type(module) is nn.Linear:
                module.__class__ = FrozenLinear
        self.config = hf.config
        self.name = name
        self.sha256 = sha256 or hub.weights_sha256(hf)
        self.checkpointing = checkpointing
        self.bank = ExpertBank(hf)
        self.log_mel = LogMel(hf.config.num_mel_bins)

    @classmethod
    def from_pretrained(cls, name: str, **kwargs) -> Backbone:
        """Loads a hub id, a local folder, or a pinned package; see :mod:`.hub`.

        Raises:
            FileNotFoundError: No source has it, or a file of it is missing.
            ValueError: A file of its weights is broken.
        """
        folder = hub.resolve(name)
        check_whisper(folder, hub.weight_files(folder))
        try:
            hf = WhisperForConditionalGeneration.from_pretrained(
                folder,
                dtype=torch.float32,
                use_safetensors=True,
                attn_implementation="eager",  # not one that a configuration names
            )
        # Of values in its configurations that are none.
        except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
            raise ValueError(
                f"{folder} must hold a Whisper, but got {type(error).__name__}: {error}"
            ) from error
        return cls(hf, name=str(name), **kwargs)

    def plain_state(self) -> dict[str, Tensor]:
        """The weights by transformers' names, experts left out; not copied."""
        return {
            key.replace(".base_layer.", "."): weight
            for key, weight in self.hf.state_dict().items()
            if ".lora_" not in key
        }

    def twin(self) -> Backbone:
        """The same Whisper in the same memory, with an empty bank of its own.

        For another system whose experts have the names of this one's.
        """
        shared = {
            id(weight): nn.Parameter(weight.data, requires_grad=False)
            for weight in self.parameters()
        }
        twin = copy.deepcopy(self, shared)
        for name in twin.bank.names:
            twin.bank.drop(name)
        return twin

    def train(self, mode: bool = True) -> Backbone:
        """Whisper itself stays in evaluation mode: no dropout, no layer drop."""
        super().train(mode)
        self.hf.eval()
        return self

    @property
    def encoder_layers(self) -> int:
        """Number of encoder layers."""
        return self.config.encoder_layers

    @property
    def decoder_layers(self) -> int:
        """Number of decoder layers."""
        return self.config.decoder_layers

    def embed(self, mel_BTM: Tensor, frames_B: Tensor) -> tuple[Tensor, Tensor]:
        """Convolutions and positions: the input of encoder layer 0.

        Frames past an utterance's own are zeroed before both convolutions, so that they
        look like the end of the input.

        Returns:
            ``x_BPD`` and ``valid_BP``, True at the utterance's own positions.
        """
        encoder = self.hf.model.encoder
        own_BT = (
            torch.arange(mel_BTM.shape[1], device=mel_BTM.device) < frames_B[:, None]
        )
        own_B1T = own_BT[:, None]
        x_BDT = F.gelu(encoder.conv1(mel_BTM.transpose(1, 2) * own_B1T))
        x_BDP = F.gelu(encoder.conv2(x_BDT * own_B1T))
        x_BPD = x_BDP.transpose(1, 2) + encoder.embed_positions.weight[: x_BDP.shape[2]]
        return x_BPD, own_BT[:, ::2]

    def encode_layer(
        self, i: int, x_BPD: Tensor, valid_BP: Tensor, gate: Gate
    ) -> Tensor:
        """Encoder layer ``i`` under a gate, (B, P, D)."""
        return self._run(
            self.hf.model.encoder.layers[i], gate, x_BPD, padding_mask(valid_BP)
        )

    def encoder_norm(self, x_BPD: Tensor) -> Tensor:
        """The layer norm after the last encoder layer."""
        return self.hf.model.encoder.layer_norm(x_BPD)

    def embed_tokens(self, ids_BU: Tensor, start: int = 0) -> Tensor:
        """Token and position embeddings: the input of decoder layer 0.

        Args:
            ids_BU: Token ids, (B, U).
            start: Position of the first.
        """
        decoder = self.hf.model.decoder
        positions_UD = decoder.embed_positions.weight[start : start + ids_BU.shape[1]]
        return decoder.embed_tokens(ids_BU) + positions_UD

    def decode_layer(
        self,
        i: int,
        y_BUD: Tensor,
        encoded_BPD: Tensor,
        valid_BP: Tensor,
        gate: Gate,
    ) -> Tensor:
        """Decoder layer ``i`` under a gate, causal, (B, U, D)."""
        layer = self.hf.model.decoder.layers[i]
        mask = padding_mask(valid_BP)
        return self._run(layer, gate, y_BUD, None, encoded_BPD, mask)

    def logits(self, y_ND: Tensor, ids: Sequence[int] | None = None) -> Tensor:
        """Scores of all tokens, or of some, from the last decoder layer's output.

        Args:
            y_ND: That output.
            ids: Ids of the tokens; None: all.

        Returns:
            Scores, (N, K).
        """
        states_ND, W_KD = self._vocabulary(y_ND)
        W_KD = W_KD if ids is None else W_KD[list(ids)]
        return linear(states_ND.to(W_KD.dtype), W_KD)

    def over_vocabulary(
        self, y_ND: Tensor, losses: Losses, others: Sequence[Tensor] = ()
    ) -> tuple[Tensor, ...]:
        """Losses of the scores of all tokens; see :func:`~.vocabulary.over_vocabulary`.

        Args:
            y_ND: The last decoder layer's output at N positions.
            losses: Takes which positions and their scores to values.
            others: Other outputs, (N, D), whose scores the losses need too.
        """
        states_ND, W_KD = self._vocabulary(y_ND)
        with torch.no_grad():
            others = [self._vocabulary(other_ND)[0] for other_ND in others]
        return over_vocabulary(states_ND, W_KD, losses, others)

    def _vocabulary(self, y_ND: Tensor) -> tuple[Tensor, Tensor]:
        """What is multiplied to scores: the normed states and the tokens' weight."""
        states_ND = self.hf.model.decoder.layer_norm(y_ND)
        return states_ND, cast_once(self.hf.proj_out)[0]

    def _run(self, layer: nn.Module, gate: Gate, *args) -> Tensor:
        def under_gate(*inputs):
            with self.bank.using(gate):
                return layer(*inputs)

        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(under_gate, *args, use_reentrant=False)
        return under_gate(*args)


def padding_mask(valid_BP: Tensor) -> Tensor | None:
    """Attention mask that broadcasts over heads and queries; None when all is valid."""
    return None if bool(valid_BP.all()) else valid_BP[:, None, None, :]
