"""What the encoder makes of clips under a system's gates: one vector for each clip."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch

from espnet_lora_experts import atomic
from espnet_lora_experts.whisper.audio import SAMPLE_RATE
from espnet_lora_experts.whisper.backbone import Backbone
from espnet_lora_experts.whisper.batching import batches
from espnet_lora_experts.whisper.features import FRAME_PAIR, MARGIN, MAX_SAMPLES, stack
from espnet_lora_experts.whisper.route import Route
from espnet_lora_experts.whisper.systems import System, encode


@torch.no_grad()
def mean_states(
    backbone: Backbone,
    system: System,
    clips: Sequence[np.ndarray],
    route: Route | None = None,
    pad_to_30s: bool = False,
    batch_seconds: float = 80.0,
    progress: Callable[[int], object] = lambda done: None,
) -> np.ndarray:
    """The mean of each clip's encoder states over the positions that hold its speech.

    Source: https://arxiv.org/abs/2506.21555, Figure 3.

    Args:
        backbone: The frozen Whisper.
        system: The gates.
        clips: Samples at 16 kHz in [-1, 1], at most 30 s of each.
        route: Language of each clip, for systems that must be told.
        pad_to_30s: Pad clips to 30 s, as a Whisper that was not fine-tuned needs it.
        batch_seconds: Most seconds of a padded batch.
        progress: Called with the number of clips done, after each batch.

    Returns:
        Means of N clips, (N, D), in the order of the clips.

    Raises:
        ValueError: A clip is empty or longer than 30 s, or the system must be told
            the languages.
    """
    most = batch_seconds * SAMPLE_RATE
    lengths = [MAX_SAMPLES if pad_to_30s else len(clip) + MARGIN for clip in clips]
    mean_ND = np.zeros((len(clips), backbone.config.d_model), dtype=np.float32)
    for rows in batches(lengths, lambda n, longest: n * longest <= most, SAMPLE_RATE):
        langs = None if route is None else [route[i] for i in rows]
        mean_ND[rows] = _batch(
            backbone, system, [clips[i] for i in rows], langs, pad_to_30s
        )
        progress(len(rows))
    return mean_ND


def _batch(backbone, system, clips, route, pad_to_30s) -> np.ndarray:
    device = backbone.hf.device
    speech_BS, lengths_B = stack(clips, device)
    features = backbone.log_mel(speech_BS, lengths_B, pad_to_30s)
    hidden_BPD = encode(backbone, system, *features, route=route).hidden_BPD
    own_B = (lengths_B + FRAME_PAIR - 1) // FRAME_PAIR
    index_P = torch.arange(hidden_BPD.shape[1], device=device)
    own_BP1 = (index_P < own_B[:, None])[..., None]
    return ((hidden_BPD * own_BP1).sum(dim=1) / own_B[:, None]).cpu().numpy()


def kept_states(
    path: Path, signature: str, compute: Callable[[], np.ndarray]
) -> np.ndarray:
    """States that were computed before from the same, or else computed and kept.

    Args:
        path: npz file that keeps them.
        signature: Says what they depend on.
        compute: Computes them.

    Returns:
        Means of N clips, (N, D).
    """
    if path.is_file():
        try:
            with np.load(path) as kept:
                if str(kept["signature"]) == signature:
                    return kept["states"]
        except (ValueError, OSError, KeyError, EOFError, BadZipFile):
            pass  # a broken file is computed again
    states_ND = compute()
    with atomic.file(path) as temp, temp.open("wb") as file:
        np.savez_compressed(file, states=states_ND, signature=signature)
    return states_ND
