"""Whatever the file, one channel at 16 kHz; whatever is wrong, one clear error."""

import numpy as np
import pytest
import soundfile

from espnet_lora_experts.whisper.audio import read_audio


def tone(rate, seconds=0.5, hertz=440.0):
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)


def write(path, samples, rate=16_000, **kwargs):
    soundfile.write(path, samples, rate, **kwargs)
    return path


def test_samples_are_the_files(tmp_path):
    samples = tone(16_000).astype(np.float32)
    path = write(tmp_path / "a.wav", samples, subtype="FLOAT")
    read = read_audio(path)
    assert read.dtype == np.float32
    assert np.array_equal(read, samples)
    assert np.array_equal(read_audio(str(path)), samples)


@pytest.mark.parametrize("extension", ["wav", "flac", "ogg"])
def test_formats_hold_the_same_sound(tmp_path, extension):
    samples = tone(16_000)
    read = read_audio(write(tmp_path / f"a.{extension}", samples))
    assert read.shape == samples.shape
    assert np.abs(read - samples).max() < 0.05


def test_stereo_is_the_mean_of_its_channels(tmp_path):
    left, right = tone(16_000), tone(16_000, hertz=1000)
    both = np.stack([left, right], axis=1)
    read = read_audio(write(tmp_path / "a.wav", both, subtype="FLOAT"))
    np.testing.assert_allclose(read, (left + right) / 2, atol=1e-6)


@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_other_rates_become_16_khz(tmp_path, rate, channels):
    samples = np.stack([tone(rate)] * channels, axis=1)
    read = read_audio(write(tmp_path / "a.wav", samples, rate))
    assert read.shape == (8_000,)
    assert read.dtype == np.float32
    inner = slice(800, -800)  # away from the resampler's edges
    np.testing.assert_allclose(read[inner], tone(16_000)[inner], atol=0.01)


@pytest.mark.parametrize("channels", [1, 2])
def test_pipe_is_the_file_it_writes(tmp_path, channels):
    path = write(tmp_path / "a.wav", np.stack([tone(16_000)] * channels, axis=1))
    assert np.array_equal(read_audio(f"cat {path} |"), read_audio(path))


def test_pipe_may_leave_the_length_open(tmp_path):
    """As sox and ffmpeg do, who cannot go back to fill it in."""
    path = write(tmp_path / "a.wav", tone(16_000))
    data = bytearray(path.read_bytes())
    expected = read_audio(path)
    for at in 4, data.index(b"data") + 4:
        data[at : at + 4] = b"\xff" * 4
    path.write_bytes(data)
    assert np.array_equal(read_audio(f"cat {path} |"), expected)


def test_wrong_files_are_named(tmp_path):
    (tmp_path / "text.wav").write_text("not audio at all")
    write(tmp_path / "empty.wav", np.zeros((0, 2)))
    for name, message in {
        "missing.wav": "must be a readable audio file",
        "text.wav": "must be a readable audio file",
        ".": "must be a readable audio file",
        "empty.wav": "must have samples, but is empty",
    }.items():
        with pytest.raises(ValueError, match=message) as error:
            read_audio(tmp_path / name)
        assert str(tmp_path / name) in str(error.value)


@pytest.mark.parametrize("command", ["false |", "echo no audio |", "no-such-command |"])
def test_pipe_that_fails_is_named(command):
    with pytest.raises(ValueError, match="must be a readable audio file") as error:
        read_audio(command)
    assert str(error.value).startswith(command)


def test_pipe_that_fails_in_the_end_is_no_audio(tmp_path):
    path = write(tmp_path / "a.wav", tone(16_000))
    with pytest.raises(ValueError, match="exit status 3"):
        read_audio(f"cat {path}; exit 3 |")
