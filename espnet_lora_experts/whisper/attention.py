"""Attention by plain products where torch's own kernel is the slower one.

Torch's attention for CPUs multiplies bfloat16 by hand and float32 by MKL. With
Whisper's short sequences two products and a softmax in bfloat16 are three times as
fast forward and five times backward; where no gradient is needed, long sequences are
1.6 to 2 times as fast head by head. Everything else stays with torch.

Names of dimensions: B batch, H heads, d width of a head, T queries, P keys.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from espnet_lora_experts.experts.product import linear, mkl_is_slow

NAME = "lora_experts"
"""Transformers' ``attn_implementation`` that is this one."""
MOST_WEIGHTS = 2**24
"""B H T P where all are held at once: 64 MB of weights in float32."""
LONG = 2**18
"""T P from which a head is work enough by itself."""


def heads(x_BTD: Tensor, attention: nn.Module) -> Tensor:
    """One attention's states by head, (B, H, T, d)."""
    shape = attention.num_heads, attention.head_dim
    return x_BTD.unflatten(-1, shape).transpose(1, 2)


def attend(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, **kwargs):
    """Attention with scaled queries.

    Args:
        query: (B, H, T, d), already scaled.
        keys: (B, H, P, d).
        values: (B, H, P, d).
        mask: Boolean, True where a query sees a key; broadcasts to (B, H, T, P).
        kwargs: ``is_causal=True``, see ``scaled_dot_product_attention``.

    Returns:
        (B, H, T, d).
    """
    weights = query.shape[-2] * keys.shape[-2]
    learns = torch.is_grad_enabled() and (query.requires_grad or keys.requires_grad)
    if query.is_cpu and query.dtype in (torch.bfloat16, torch.float32):
        half = query.dtype == torch.bfloat16
        if half and weights * query.shape[:2].numel() <= MOST_WEIGHTS:
            return _by_products(query, keys, values, mask, **kwargs)
        if (half or mkl_is_slow()) and weights >= LONG and not (learns or kwargs):
            return _by_heads(query, keys, values, mask)
    return F.scaled_dot_product_attention(
        query, keys, values, mask, scale=1.0, **kwargs
    )


def _by_products(query, keys, values, mask, is_causal=False):
    scores_BHTP = query @ keys.mT
    if is_causal:
        mask = torch.ones(scores_BHTP.shape[-2:], dtype=torch.bool).tril()
    if mask is not None:
        scores_BHTP = scores_BHTP.masked_fill(~mask, float("-inf"))
    return scores_BHTP.softmax(dim=-1, dtype=torch.float32).to(values.dtype) @ values


def _by_heads(query, keys, values, mask):
    seen = torch.empty_like(query)
    for b, h in itertools.product(*map(range, query.shape[:2])):
        scores_TP = linear(query[b, h], keys[b, h])
        if mask is not None:
            own_TP = mask.expand(len(query), query.shape[1], -1, -1)[b, h]
            scores_TP.masked_fill_(~own_TP, float("-inf"))
        weights_TP = scores_TP.softmax(dim=-1, dtype=torch.float32)
        seen[b, h] = linear(weights_TP.to(values.dtype), values[b, h].T)
    return seen


def _for_transformers(module, query, key, value, attention_mask, **kwargs):
    """Transformers' contract; its Whisper scales the queries itself."""
    causal = module.is_causal and attention_mask is None and query.shape[2] > 1
    kwargs = {"is_causal": True} if causal else {}
    seen = attend(query, key, value, attention_mask, **kwargs)
    return seen.transpose(1, 2), None


AttentionInterface.register(NAME, _for_transformers)
AttentionMaskInterface.register(NAME, sdpa_mask)
