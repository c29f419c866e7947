"""A linear layer that holds a bank of LoRA experts and obeys the bank's gate."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import torch
from peft.tuners import lora
from torch import Tensor, nn

from espnet_lora_experts.experts.gate import Factors, Gate, Term
from espnet_lora_experts.experts.product import (
    add_product,
    as_index,
    cast_once,
    gated_linear,
    linear,
)


@dataclass
class Switch:
    """The one thing all layers of a bank share: the gate in force.

    Attributes:
        gate: None outside :meth:`ExpertBank.using`; layers are then plain PEFT.
        folded: Keys of the layers whose weight holds its gate already.
    """

    gate: Gate | None = None
    folded: set[str] = field(default_factory=set)


class ExpertLinear(lora.Linear):
    r"""PEFT's LoRA layer with a gate over experts.

    .. math:: y = W x + b + \sum_t w_t B_t A_t x

    with one term t for the rows it names (LoRA: https://arxiv.org/abs/2106.09685;
    experts: https://arxiv.org/abs/2506.21555, Section 2). PEFT loops over adapters for
    mixed batches and refuses them in training; here a batch may mix experts while it
    trains. Outside a gate this is PEFT's own forward.
    """

    switch: Switch
    key: str

    def factors(self, name: str) -> Factors | None:
        """The pair of one expert, LoRA's scale folded into B.

        Args:
            name: Expert, as given to :meth:`ExpertBank.add`.

        Returns:
            ``A_RD, B_OR``, or None when the expert does not touch this layer.
        """
        adapter = adapter_name(name)
        if adapter not in self.lora_A:
            return None
        A_RD = cast(Tensor, self.lora_A[adapter].weight)
        B_OR = cast(Tensor, self.lora_B[adapter].weight)
        scale = self.scaling[adapter]
        return A_RD, B_OR if scale == 1 else B_OR * scale

    @torch.no_grad()
    def set_factors(self, name: str, A_RD: Tensor, B_OR: Tensor) -> None:
        """Overwrites an expert's pair; the inverse of :meth:`factors`."""
        adapter = adapter_name(name)
        cast(Tensor, self.lora_A[adapter].weight).copy_(A_RD)
        cast(Tensor, self.lora_B[adapter].weight).copy_(B_OR / self.scaling[adapter])

    def delta_OD(self, gate: Gate) -> Tensor | None:
        """The change of weight that a gate over all rows means, (O, D), or None.

        Raises:
            ValueError: A term treats rows differently, so that no one weight exists.
        """
        delta_OD = None
        for term in gate:
            if term.which is not None or term.weight is not None:
                raise ValueError(
                    f"a gate must treat all rows alike to be folded, but got {term}"
                )
            pair = term.factors(self)
            if pair is not None:
                product_OD = pair[1] @ pair[0]
                delta_OD = product_OD if delta_OD is None else delta_OD + product_OD
        return delta_OD

    def forward(self, x: Tensor, *args, **kwargs) -> Tensor:
        """Applies the layer under the gate in force.

        Args:
            x: Input, (B, ..., D).

        Returns:
            Output, (B, ..., O).
        """
        gate = self.switch.gate
        if gate is None:
            return super().forward(x, *args, **kwargs)
        W_OD, bias_O = cast_once(cast(nn.Linear, self.get_base_layer()))
        terms = () if self.key in self.switch.folded else gate
        held = [(t, pair) for t in terms if (pair := t.factors(self)) is not None]
        if held and held[0][0].weight is None:
            term, pair = held.pop(0)
            y = gated_linear(x, W_OD, bias_O, *pair, term.which)
        else:
            y = gated_linear(x, W_OD, bias_O)
        for term, pair in held:
            self._add(y, term, pair, x)
        return y

    def _add(self, y: Tensor, term: Term, pair: Factors, x: Tensor) -> None:
        """Adds what a term gives to the output, in place."""
        A, B = pair
        if term.which is not None:
            which_B = as_index(term.which, x.device)
            A, B = A[which_B], B[which_B]
        x, A = x.reshape(len(x), -1, x.shape[-1]).to(y.dtype), A.to(y.dtype)
        h_BNR = linear(x, A) if A.dim() == 2 else x @ A.mT
        if term.weight is not None:
            h_BNR = h_BNR * term.weight(self)[:, None].to(h_BNR)
        add_product(y.view(len(x), -1, y.shape[-1]), h_BNR, B.mT)


class FrozenLinear(nn.Linear):
    """A linear layer by :func:`~.product.gated_linear`: what holds no expert, too."""

    def forward(self, x: Tensor) -> Tensor:
        """``x W^T + b``, (B, ..., O)."""
        return gated_linear(x, *cast_once(self))


def adapter_name(name: str) -> str:
    """PEFT's name of an expert; the prefix because ``to`` or ``type`` would raise."""
    return f"expert_{name}"
