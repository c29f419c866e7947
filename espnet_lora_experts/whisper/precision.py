"""Which floating-point type the matrix products run in."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache

import torch

AUTOCAST = ("auto", "none", "bfloat16", "float16")


def autocast_type(autocast: str, device: str) -> torch.dtype | None:
    """The type for ``torch.autocast``; None leaves everything as it is.

    Args:
        autocast: ``none``, ``bfloat16``, ``float16``, or ``auto``: bfloat16 where the
            device multiplies it in hardware (a CPU without would be slower than in
            float32).
        device: ``cpu`` or ``cuda``.

    Raises:
        ValueError: Unknown ``autocast``.

    Example:
        >>> autocast_type("bfloat16", "cpu")
        torch.bfloat16
        >>> autocast_type("none", "cpu") is None
        True
    """
    if autocast not in AUTOCAST:
        raise ValueError(f"autocast must be of {AUTOCAST}, but got {autocast!r}")
    if autocast == "auto":
        return torch.bfloat16 if _has_bfloat16(device) else None
    return None if autocast == "none" else getattr(torch, autocast)


def autocast_context(autocast: str, device: str) -> AbstractContextManager:
    """The context of matrix products in :func:`autocast_type`.

    Without a type a surrounding ``torch.autocast`` stays, such as ESPnet's ``use_amp``.

    Args:
        autocast: See :func:`autocast_type`.
        device: ``cpu`` or ``cuda``.
    """
    dtype = autocast_type(autocast, device)
    return nullcontext() if dtype is None else torch.autocast(device, dtype)


@cache
def _has_bfloat16(device: str) -> bool:
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16"))
