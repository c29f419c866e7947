"""Features are transformers' own at 30 s, and an utterance's own in any batch."""

import pytest
import torch
from transformers import WhisperFeatureExtractor

from espnet_lora_experts.whisper.features import HOP, MARGIN, MAX_SAMPLES, LogMel


@pytest.fixture(scope="module")
def speech():
    """Noise whose level falls, so that Whisper's floor at 8 decades is met."""
    generator = torch.Generator().manual_seed(0)
    level = torch.linspace(0, -6, MAX_SAMPLES).pow_(1).mul(2.3).exp()
    return torch.randn(MAX_SAMPLES, generator=generator) * 0.1 * level


def transformers_features(speech_S, n_mels):
    extract = WhisperFeatureExtractor(feature_size=n_mels)
    features = extract(speech_S.numpy(), sampling_rate=16_000, return_tensors="pt")
    return features.input_features[0].T


@pytest.mark.parametrize("n_mels", [80, 128])
@pytest.mark.parametrize("length", [400, 50_001, MAX_SAMPLES])
def test_features_are_transformers(speech, n_mels, length):
    lengths = torch.tensor([length])
    expected_TM = transformers_features(speech[:length], n_mels)
    log_mel = LogMel(n_mels)
    padded_BTM, frames_B = log_mel(speech[None, :length], lengths, pad_to_30s=True)
    assert frames_B.tolist() == [3000]
    torch.testing.assert_close(padded_BTM[0], expected_TM, atol=2e-4, rtol=0)
    natural_BTM, frames_B = log_mel(speech[None, :length], lengths)
    expected_TM = expected_TM[: frames_B[0]]
    torch.testing.assert_close(natural_BTM[0], expected_TM, atol=2e-4, rtol=0)


@pytest.mark.parametrize("junk", [0.0, 5.0, float("nan")])
@pytest.mark.parametrize(
    "lengths", [[16_000, 700, 40_001], [MAX_SAMPLES - 900, MAX_SAMPLES, 16_000]]
)
def test_features_do_not_depend_on_the_batch(speech, lengths, junk):
    log_mel = LogMel(80)
    batch_BS = torch.full((3, max(lengths)), junk)
    for i, length in enumerate(lengths):
        batch_BS[i, :length] = speech[i : length + i] if i + length < 400_000 else 0.1
    mel_BTM, frames_B = log_mel(batch_BS, torch.tensor(lengths))
    for i, length in enumerate(lengths):
        alone_BTM, alone_B = log_mel(
            batch_BS[i : i + 1, :length], torch.tensor([length])
        )
        assert alone_B[0] == frames_B[i] == alone_BTM.shape[1]
        torch.testing.assert_close(mel_BTM[i, : frames_B[i]], alone_BTM[0])


@pytest.mark.parametrize("length", [1, 159, 160, 16_000, MAX_SAMPLES - MARGIN + 1])
def test_lengths_have_the_margin_and_are_even(length):
    _, frames_B = LogMel(80)(torch.zeros(1, length), torch.tensor([length]))
    frames = int(frames_B[0])
    assert frames % 2 == 0
    assert (length + MARGIN <= frames * HOP < length + MARGIN + 2 * HOP) or (
        frames == 3000
    )


@pytest.mark.parametrize(
    ("lengths", "named"),
    [([0, 5], "from 0 to 5"), ([5, MAX_SAMPLES + 1], f"from 5 to {MAX_SAMPLES + 1}")],
)
def test_empty_and_long_utterances_are_errors(lengths, named):
    with pytest.raises(ValueError, match=f"1 to {MAX_SAMPLES} samples.*{named}"):
        LogMel(80)(torch.zeros(2, 8), torch.tensor(lengths))


def test_features_stay_float32_under_autocast(speech):
    args = speech[None, :16_000], torch.tensor([16_000])
    expected_BTM, _ = LogMel(80)(*args)
    with torch.autocast("cpu", torch.bfloat16):
        mel_BTM, _ = LogMel(80)(*args)
    assert torch.equal(mel_BTM, expected_BTM)
