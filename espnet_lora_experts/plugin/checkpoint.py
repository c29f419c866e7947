"""Checkpoints of trained tensors only, bound to their backbone, strictly checked."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

HASH_KEY = "backbone_sha256"
"""Key of the backbone's hash: 32 bytes as a tensor, so that files hold tensors only."""


def trained_tensors(model: nn.Module) -> dict[str, Tensor]:
    """What training changes: parameters with a gradient, the system's statistics."""
    learned = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
    system = "encoder.system."
    return learned | {n: b for n, b in model.named_buffers() if n.startswith(system)}


def trained_state(model: nn.Module, sha256: str) -> dict[str, Tensor]:
    """The tensors that training changes, and the backbone's hash."""
    state = trained_tensors(model)
    state[HASH_KEY] = torch.frombuffer(bytearray.fromhex(sha256), dtype=torch.uint8)
    return state


@torch.no_grad()
def load_trained_state(
    model: nn.Module, state: Mapping[str, Tensor], sha256: str
) -> None:
    """Copies a checkpoint's tensors into a model, all or nothing.

    Raises:
        ValueError: Another backbone, or keys or shapes that are not exactly the model's
            trained ones (a checkpoint that lacks its adapter must not pass in silence).
    """
    if HASH_KEY not in state:
        raise ValueError(
            f"the checkpoint must name its backbone ({HASH_KEY}), but lacks it"
        )
    written_for = bytes(state[HASH_KEY].cpu().tolist()).hex()
    if written_for != sha256:
        raise ValueError(
            f"the checkpoint must be of backbone {sha256[:12]}, but it was trained on "
            f"{written_for[:12]}; give the backbone named in its config.yaml"
        )
    own = trained_tensors(model)
    given = set(state) - {HASH_KEY}
    wrong = sorted(set(own) ^ given) or [
        n for n, p in own.items() if p.shape != state[n].shape
    ]
    if wrong:
        raise ValueError(
            f"the checkpoint must hold the model's {len(own)} trained tensors, but "
            f"{len(wrong)} are missing, unknown or of another shape: {wrong[:3]} ...; "
            "was it trained with the same model_conf?"
        )
    for name, tensor in own.items():
        tensor.copy_(state[name])
