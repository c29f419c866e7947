"""Voice activity: what nobody says is no speech. Real speech: tests/integration."""

import sys

import numpy as np
import pytest
import torch

from espnet_lora_experts.inference import voice
from espnet_lora_experts.inference.segmentation import Segmentation

RATE = 16_000
TIME = np.arange(31 * RATE) / RATE


def hum():
    return 0.1 * np.sin(2 * np.pi * 50 * TIME)


def hiss():
    return np.random.RandomState(0).normal(0, 0.05, len(TIME))


def music():
    """Chords with overtones, a new one every half second, that die away."""
    bass = 110 * 2 ** (np.array([0, 5, 7, 3])[(TIME * 2).astype(int) % 4] / 12)
    parts = [
        np.sin(2 * np.pi * bass * ratio * harmonic * TIME) / harmonic
        for ratio in (1, 5 / 4, 3 / 2)
        for harmonic in range(1, 6)
    ]
    return 0.05 * sum(parts) * np.exp(-3 * (TIME % 0.5))


@pytest.mark.parametrize("sound", [hum, hiss, music])
def test_no_voice_no_segment(sound):
    assert Segmentation()(sound().astype(np.float32)) == []


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("count", [100, 512 * 10, 512 * 25 + 7, 512 * 70 + 300])
def test_rows_are_the_recording_each_after_its_lead(monkeypatch, rows, count):
    row, lead = 512 * 10, 512 * 3
    monkeypatch.setattr(voice, "ROW", row)
    monkeypatch.setattr(voice, "ROWS", rows)
    monkeypatch.setattr(voice, "LEAD", lead)
    samples = np.arange(1, count + 1, dtype=np.float32)
    blocks = [voice._rows(samples, i) for i in range(0, count, rows * row)]
    assert all(len(block) <= rows for block in blocks)
    read = np.concatenate([block[:, lead:].flatten() for block in blocks])
    assert np.array_equal(read[:count], samples) and not read[count:].any()
    leads = [one[:lead] for block in blocks for one in block]
    assert not leads[0].any()
    for i, before in enumerate(leads[1:], start=1):
        assert np.array_equal(before, samples[i * row - lead : i * row])


@pytest.mark.parametrize("count", [1, 512, 512 * 130 + 1])
def test_a_probability_for_each_frame(monkeypatch, count):
    monkeypatch.setattr(voice, "ROW", 512 * 50)
    samples = np.random.RandomState(0).normal(0, 0.1, count).astype(np.float32)
    found = voice.speech_probabilities(samples)
    assert found.shape == (-(-count // 512),)
    assert ((found >= 0) & (found <= 1)).all()


def test_the_package_leaves_torchs_threads_alone(monkeypatch):
    """Its import sets them to one."""
    before = torch.get_num_threads()
    for name in [name for name in sys.modules if name.startswith("silero_vad")]:
        monkeypatch.delitem(sys.modules, name)
    torch.set_num_threads(3)
    try:
        voice._silero()
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "silero_vad", None)
    with pytest.raises(ValueError, match="pip install silero-vad, or give segmentat"):
        Segmentation()(hiss().astype(np.float32))
