"""Means of encoder states: of a clip's own positions, whatever the batch."""

import numpy as np
import pytest
import torch

from espnet_lora_experts.whisper.features import FRAME_PAIR
from espnet_lora_experts.whisper.states import kept_states, mean_states
from espnet_lora_experts.whisper.systems import Experts, Single, System, encode


@pytest.fixture(scope="module")
def clips():
    """Four clips of noise, of different lengths."""
    rng = np.random.default_rng(0)
    lengths = (9000, 4000, 12_000, 6400)
    return [rng.uniform(-0.5, 0.5, n).astype(np.float32) for n in lengths]


def test_a_mean_is_over_the_positions_of_the_speech(backbone, clips):
    found_ND = mean_states(backbone, System([]), clips[:1])
    speech = torch.from_numpy(clips[0])[None]
    mel = backbone.log_mel(speech, torch.tensor([len(clips[0])]))
    with torch.no_grad():
        hidden_PD = encode(backbone, System([]), *mel).hidden_BPD[0]
    own = -(-len(clips[0]) // FRAME_PAIR)
    assert own < len(hidden_PD)
    np.testing.assert_allclose(found_ND[0], hidden_PD[:own].mean(dim=0), atol=1e-5)


def test_batches_change_nothing_and_are_reported(trio, clips):
    route = ["es", "ru", "es", "ja"]
    system = Experts(["es", "ru", "ja"])
    done = []
    together_ND = mean_states(trio, system, clips, route, progress=done.append)
    alone_ND = [
        mean_states(trio, system, [clip], [lang], batch_seconds=0.1)[0]
        for clip, lang in zip(clips, route, strict=True)
    ]
    np.testing.assert_allclose(together_ND, np.stack(alone_ND), atol=1e-5)
    assert sum(done) == len(clips)
    each_ND = [
        mean_states(trio, Single(system.languages, lang), [clip])[0]
        for clip, lang in zip(clips, route, strict=True)
    ]
    np.testing.assert_allclose(together_ND, np.stack(each_ND), atol=1e-5)


def test_a_file_keeps_states_until_what_they_depend_on_changes(tmp_path):
    path = tmp_path / "new" / "states.npz"
    runs = []

    def compute():
        runs.append(1)
        return np.full((2, 3), float(len(runs)), dtype=np.float32)

    assert kept_states(path, "a", compute)[0, 0] == 1
    assert kept_states(path, "a", compute)[0, 0] == 1
    assert kept_states(path, "b", compute)[0, 0] == 2
    whole = path.read_bytes()
    for broken in (b"", b"no archive", whole[:-30]):
        path.write_bytes(broken)
        before = len(runs)
        kept_states(path, "b", compute)
        assert len(runs) == before + 1
    assert kept_states(path, "b", compute)[0, 0] == len(runs) == 5
