"""Which floating-point type the matrix products run in."""

from __future__ import annotations

from functools import cache

import torch

AUTOCAST = ("auto", "none", "bfloat16", "float16")


def autocast_type(autocast: str, device: str) -> torch.dtype | None:
    """The type for ``torch.autocast``; None leaves everything in float32.

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


@cache
def _has_bfloat16(device: str) -> bool:
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16"))
