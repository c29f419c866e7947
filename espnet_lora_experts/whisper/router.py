"""The router: which language is this? A small head on features of a middle layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

POOLINGS = ("mean", "mean_std", "attentive")


class Standardize(nn.Module):
    """Shifts and scales each dimension to mean 0 and variance 1 over the training.

    Training reads rows by what was known before their batch, so that none depends on
    the others of its batch, and then learns from them; with several ranks, from all.

    Args:
        width: Dimensions D.
    """

    count: Tensor
    mean_D: Tensor
    var_D: Tensor

    def __init__(self, width: int):
        super().__init__()
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("mean_D", torch.zeros(width))
        self.register_buffer("var_D", torch.ones(width))

    def forward(self, x_BD: Tensor) -> Tensor:
        """Standardised rows, (B, D)."""
        y_BD = (x_BD - self.mean_D) / self.var_D.clamp(min=1e-8).sqrt()
        if self.training:
            self._learn(x_BD.detach())
        return y_BD

    def _learn(self, x_BD: Tensor) -> None:
        """Merges rows into the statistics, but for those of a step that is skipped."""
        finite_B1 = x_BD.isfinite().all(dim=1, keepdim=True)
        new = _over_ranks(finite_B1.sum(dtype=x_BD.dtype))
        total = (self.count + new).clamp(min=1)
        old_D = self.mean_D.clone()
        offset_D = (x_BD - old_D).where(finite_B1, 0).sum(dim=0)
        self.mean_D += _over_ranks(offset_D) / total
        square_D = (x_BD - self.mean_D).square().where(finite_B1, 0).sum(dim=0)
        old_square_D = self.var_D + (old_D - self.mean_D).square()
        new_square_D = self.count * old_square_D + _over_ranks(square_D)
        self.var_D.copy_(new_square_D / total)
        self.count += new


def _over_ranks(x: Tensor) -> Tensor:
    """The sum over all ranks of a training."""
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(x)
    return x


class Router(nn.Module):
    """Predicts the language from encoder states: pool, then ``d -> d -> N`` with GELU.

    The states are layer-normalised first and pooled over valid positions only: without
    either the router hears the padding and a few loud dimensions. The pooled vector is
    standardised: most of it is the same for all speech, and hides what differs. Source:
    https://arxiv.org/abs/2506.21555, Section 2.2 (MLP on the merged layers' features).

    Args:
        width: Width D of the encoder.
        languages: The N languages, in the order of the logits.
        pooling: ``mean``, ``mean_std`` or ``attentive``.

    Raises:
        ValueError: Unknown pooling.
    """

    def __init__(self, width: int, languages: list[str], pooling: str = "mean"):
        super().__init__()
        if pooling not in POOLINGS:
            raise ValueError(f"pooling must be one of {POOLINGS}, but got {pooling!r}")
        self.languages = list(languages)
        self.pooling = pooling
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.attention = nn.Linear(width, 1) if pooling == "attentive" else None
        pooled = 2 * width if pooling == "mean_std" else width
        self.standardize = Standardize(pooled)
        self.mlp = nn.Sequential(
            nn.Linear(pooled, width), nn.GELU(), nn.Linear(width, len(self.languages))
        )

    def forward(self, x_BPD: Tensor, valid_BP: Tensor) -> Tensor:
        """Language logits, (B, N).

        Args:
            x_BPD: Encoder states, (B, P, D).
            valid_BP: True at valid positions, (B, P).
        """
        x_BPD = self.norm(x_BPD.float())
        weight_BP = self._weight(x_BPD, valid_BP)
        mean_BD = torch.einsum("bp,bpd->bd", weight_BP, x_BPD)
        if self.pooling != "mean_std":
            return self.mlp(self.standardize(mean_BD))
        square_BD = torch.einsum("bp,bpd->bd", weight_BP, x_BPD.square())
        std_BD = (square_BD - mean_BD.square()).clamp(min=1e-6).sqrt()
        return self.mlp(self.standardize(torch.cat([mean_BD, std_BD], dim=1)))

    def _weight(self, x_BPD: Tensor, valid_BP: Tensor) -> Tensor:
        score_BP = x_BPD.new_zeros(valid_BP.shape)
        if self.attention is not None:
            score_BP = self.attention(x_BPD).squeeze(-1)
        return score_BP.masked_fill(~valid_BP, float("-inf")).softmax(dim=1)

    @torch.no_grad()
    def start_from(self, state: Mapping[str, Tensor], places: Sequence[int]) -> None:
        """Takes over a router of some of the languages, whose logits stay as they were.

        A new language starts as the mean of the old ones, in weight and bias: its logit
        is never the largest, so that no route changes before the first step.

        Args:
            state: The other's ``state_dict()``.
            places: Where each of its languages is among this one's.

        Raises:
            ValueError: Tensors of another kind of router.
        """
        own = self.state_dict()
        if own.keys() != state.keys():
            raise ValueError(
                f"state must have a router's tensors, {sorted(own)}, but has "
                f"{sorted(state)}; was it trained by another version?"
            )
        for key, old in state.items():
            if key in (f"mlp.2.{part}" for part in ("weight", "bias")):
                own[key][:] = old.mean(dim=0)
                own[key][list(places)] = old
            else:
                own[key].copy_(old)

    def route(self, logits_BN: Tensor) -> list[str]:
        """The most probable language of each row."""
        return [self.languages[n] for n in logits_BN.argmax(dim=1).tolist()]

    def shares(self, logits_BN: Tensor, top_k: int) -> list[dict[str, float]]:
        """The most probable languages of each row, best first; weights sum to 1."""
        best_BK, index_BK = logits_BN.float().topk(top_k, dim=1)
        rows = zip(index_BK.tolist(), best_BK.softmax(dim=1).tolist(), strict=True)
        return [
            {self.languages[n]: weight for n, weight in zip(*row, strict=True)}
            for row in rows
        ]
