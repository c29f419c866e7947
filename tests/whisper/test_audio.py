"""Whatever the file, one channel at 16 kHz; whatever is wrong, one clear error."""

import os
import subprocess
import sys

import av
import numpy as np
import pytest
import soundfile

from espnet_lora_experts.whisper import audio
from espnet_lora_experts.whisper.audio import TooLong, read_audio


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


@pytest.mark.parametrize("extension", ["wav", "flac", "ogg", "mp3"])
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


def test_a_long_file_is_read_in_blocks(tmp_path, monkeypatch):
    """Whose borders leave no trace, in resampling neither."""
    samples = np.stack([tone(44_100), tone(44_100, hertz=900)], axis=1)
    path = write(tmp_path / "a.wav", samples, 44_100)
    whole = read_audio(path)
    monkeypatch.setattr(audio, "BLOCK", 999)
    np.testing.assert_allclose(read_audio(path), whole, atol=1e-6)


def write_aac(path, samples, rate):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=rate)
        stream.layout = "stereo"
        planes = np.ascontiguousarray(samples.T, np.float32)
        frame = av.AudioFrame.from_ndarray(planes, format="fltp", layout="stereo")
        frame.rate = rate
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    return path


def test_m4a_is_read_by_ffmpeg(tmp_path):
    stereo = np.stack([tone(44_100, 2.0)] * 2, axis=1)
    read = read_audio(write_aac(tmp_path / "a.m4a", stereo, 44_100))
    assert read.dtype == np.float32 and 32_000 <= len(read) < 34_000
    spectrum = np.abs(np.fft.rfft(read[8_000:24_000]))
    assert spectrum.argmax() == 440
    assert np.abs(read[8_000:24_000]).max() == pytest.approx(0.5, abs=0.05)


def test_a_stream_may_change_its_rate(tmp_path):
    """As where broadcasts were joined; found by the fuzzer."""
    parts = [
        write_aac(tmp_path / f"{rate}.aac", np.stack([tone(rate, 1.0)] * 2, 1), rate)
        for rate in (44_100, 16_000)
    ]
    path = tmp_path / "joined.aac"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    read = read_audio(path)
    assert len(read) == pytest.approx(sum(len(read_audio(p)) for p in parts), rel=0.05)
    for second in (read[4_000:12_000], read[-12_000:-4_000]):
        assert np.abs(np.fft.rfft(second)).argmax() == 220  # 440 Hz in half a second


def test_what_reads_m4a_is_named_where_it_is_missing(tmp_path, monkeypatch):
    path = write_aac(tmp_path / "a.m4a", np.zeros((9_000, 2)), 44_100)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ValueError, match="a.m4a must be .* pip install av, or ffmpeg"):
        read_audio(path)


@pytest.mark.parametrize("kept", [0.1, 0.5])
def test_half_an_m4a_is_named(tmp_path, kept):
    whole = write_aac(tmp_path / "a.m4a", np.zeros((9_000, 2)), 44_100).read_bytes()
    path = tmp_path / "half.m4a"
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(ValueError, match="half.m4a must be a readable audio file"):
        read_audio(path)


@pytest.mark.parametrize("command", ["touch ran |", "touch ran | "])
def test_a_command_is_not_run(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="must be a readable .*, but is a command"):
        read_audio(command)
    assert not [*tmp_path.iterdir()]


def test_a_file_may_be_named_like_a_command(tmp_path):
    path = write(tmp_path / "a.wav", tone(16_000))
    named = path.rename(tmp_path / "touch ran |")
    assert len(read_audio(named)) == 8_000


@pytest.mark.parametrize("extension", ["wav", "flac", "mp3"])
def test_a_named_pipe_is_a_file(tmp_path, extension):
    """Such as the shell's <(ffmpeg ...)."""
    path, pipe = write(tmp_path / f"a.{extension}", tone(16_000)), tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cp", path, pipe]):
        assert np.array_equal(read_audio(pipe), read_audio(path))


@pytest.mark.parametrize("extension", ["wav", "flac", "mp3"])
def test_reading_stops_where_it_is_told_to(tmp_path, extension):
    """Whatever a header says: a few kilobytes of flac can be months of silence."""
    path = write(tmp_path / f"a.{extension}", tone(16_000 * 2))
    seconds = len(read_audio(path)) / 16_000
    assert len(read_audio(path, most_seconds=seconds)) == seconds * 16_000
    with pytest.raises(TooLong, match=f"a.{extension} must be 0.5 s long at most"):
        read_audio(path, most_seconds=0.5)


def test_what_does_not_fit_into_memory_is_named(tmp_path, monkeypatch):
    path = write(tmp_path / "a.wav", tone(16_000))

    def full(*_):
        raise MemoryError

    monkeypatch.setattr(audio, "_collect", full)
    with pytest.raises(ValueError, match="a.wav must fit into memory: cut it first"):
        read_audio(path)


def test_many_channels_are_read_by_ffmpeg(tmp_path):
    """PyAV ends the process where each of more than 8 has its own place."""
    samples = tone(16_000, seconds=6.0)
    path = write(tmp_path / "a.aiff", samples, subtype="FLOAT")
    content = bytearray(path.read_bytes())
    at = content.find(b"COMM") + 8
    content[at : at + 2] = (60).to_bytes(2, "big")
    path.write_bytes(content)
    with pytest.raises(soundfile.LibsndfileError):
        soundfile.info(path)
    assert np.allclose(read_audio(path), samples.reshape(-1, 60).mean(1), atol=1e-6)


def test_what_a_header_says_beyond_the_file_is_not_made_up(tmp_path, monkeypatch):
    monkeypatch.setattr(audio, "BLOCK", 4000)
    path = write(tmp_path / "a.mp3", tone(16_000))
    whole, content = read_audio(path), bytearray(path.read_bytes())
    at = max(content.find(b"Xing"), content.find(b"Info")) + 8
    content[at : at + 4] = (10**6).to_bytes(4, "big")  # frames of 576 samples
    path.write_bytes(content)
    assert soundfile.info(path).frames > 5 * 10**8
    assert 0 <= len(read_audio(path)) - len(whole) < 4 * 576


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
