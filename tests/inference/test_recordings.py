"""Whatever is given, samples; what cannot be, one clear error."""

import numpy as np
import pytest
import soundfile
import torch

from espnet_lora_experts.inference import recordings
from espnet_lora_experts.inference.recordings import Recording, pools, read

SAMPLES = np.random.RandomState(0).uniform(-0.5, 0.5, 400).astype(np.float32)


@pytest.mark.parametrize(
    "speech",
    [
        SAMPLES.astype(np.float64),
        torch.from_numpy(SAMPLES),
        torch.from_numpy(SAMPLES).double().requires_grad_(),
        (SAMPLES * 32_767).astype(np.int16),
        (SAMPLES.astype(np.float64) * (2**31 - 1)).astype(np.int32),
    ],
)
def test_arrays_of_any_type_are_the_same_sound(speech):
    samples = read(speech)
    assert samples.dtype == np.float32
    np.testing.assert_allclose(samples, SAMPLES, atol=2**-14)


def test_float_samples_are_not_copied():
    assert read(SAMPLES) is SAMPLES


def test_a_44_khz_stereo_file_is_one_channel_at_16_khz(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.stack([np.ones(44_100)] * 2, axis=1) * 0.3, 44_100)
    samples = read(path)
    assert samples.shape == (16_000,)
    np.testing.assert_allclose(samples[2000:-2000], 0.3, atol=0.01)


@pytest.mark.parametrize(
    ("speech", "message"),
    [
        (np.zeros(0, np.float32), r"one channel at 16 kHz, but got shape \(0,\)"),
        (np.zeros((2, 100), np.float32), r"shape \(2, 100\); give the mean"),
        (0.5, r"got shape \(\)"),
        (np.array([0.1, np.nan]), "speech must have finite samples"),
        (np.array([0.1, -np.inf]), "speech must have finite samples"),
    ],
)
def test_what_is_no_sound_is_an_error(speech, message):
    with pytest.raises(ValueError, match=message):
        read(speech)


def test_a_file_with_nan_is_named(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.array([0.1, np.nan]), 16_000, subtype="FLOAT")
    with pytest.raises(ValueError, match="a.wav must have finite samples"):
        read(path)


def test_clips_are_views_at_their_times():
    recording = Recording(SAMPLES, [(0, 160), (320, 400)])
    assert [len(clip) for clip in recording.clips] == [160, 80]
    assert all(np.shares_memory(clip, SAMPLES) for clip in recording.clips)
    assert recording.times == [(0.0, 0.01), (0.02, 0.025)]


def test_pools_read_only_so_much_ahead(monkeypatch):
    monkeypatch.setattr(recordings, "POOL", 800)
    cuts = []
    found = pools([SAMPLES] * 5, lambda samples: cuts.append(1) or [(0, 1)])
    assert len(next(found)) == 2 and len(cuts) == 2
    assert [len(pool) for pool in found] == [2, 1]
    assert list(pools([], lambda samples: [])) == []
