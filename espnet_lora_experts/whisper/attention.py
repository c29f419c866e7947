"""Attention in two plain products where torch's own kernel is the slower one.

Torch's attention for CPUs multiplies bfloat16 by hand: with Whisper's short sequences
two products and a softmax are three times as fast forward and five times backward.
They hold all weights at once, so long sequences and everything else stay with torch.

Names of dimensions: B batch, H heads, d width of a head, T queries, P keys.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

NAME = "lora_experts"
"""Transformers' ``attn_implementation`` that is this one."""
MOST_WEIGHTS = 2**24
"""B H T P: 64 MB of weights in float32."""


def attend(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, **kwargs):
    """Attention with scaled queries.

    Args:
        query: (B, H, T, d), already scaled.
        keys: (B, H, P, d).
        values: (B, H, P, d).
        mask: Boolean, True where a query sees a key; broadcasts to (B, H, T, P).
        kwargs: ``is_causal``, see ``scaled_dot_product_attention``.

    Returns:
        (B, H, T, d).
    """
    weights = keys.shape[-2] * query.shape[:-1].numel()
    if query.is_cpu and query.dtype == torch.bfloat16 and weights <= MOST_WEIGHTS:
        return _by_products(query, keys, values, mask, **kwargs)
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


def _for_transformers(module, query, key, value, attention_mask, **kwargs):
    """Transformers' contract; its Whisper scales the queries itself."""
    is_causal = module.is_causal and attention_mask is None and query.shape[2] > 1
    seen = attend(query, key, value, attention_mask, is_causal=is_causal)
    return seen.transpose(1, 2), None


AttentionInterface.register(NAME, _for_transformers)
AttentionMaskInterface.register(NAME, sdpa_mask)
