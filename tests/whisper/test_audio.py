"""Whatever the file, one channel at 16 kHz; whatever is wrong, one clear error."""

import os
import sys

import av
import numpy as np
import pytest
import soundfile

from espnet_lora_experts.whisper import audio
from espnet_lora_experts.whisper.audio import convert_audio, read_audio


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


@pytest.fixture
def source(tmp_path):
    return write(tmp_path / "a.wav", np.stack([tone(44_100)] * 2, axis=1), 44_100)


@pytest.fixture
def path(tmp_path):
    (tmp_path / "converted").mkdir()
    return tmp_path / "converted/a.flac"


def redone(path, source):
    """Whether a conversion writes the file again."""
    before = path.stat().st_ino, path.stat().st_mtime_ns
    count = convert_audio(str(source), path)
    assert count == soundfile.info(path).frames == len(soundfile.read(path)[0])
    return (path.stat().st_ino, path.stat().st_mtime_ns) != before


def test_converted_audio_is_what_is_read(source, path):
    assert convert_audio(str(source), path) == 8000
    assert [*path.parent.iterdir()] == [path]
    info = soundfile.info(path)
    assert (info.samplerate, info.channels, info.format) == (16_000, 1, "FLAC")
    np.testing.assert_allclose(read_audio(path), read_audio(source), atol=2**-15)


def test_converted_audio_stays_while_its_source_does(source, path):
    for entry in (source, f"cat {source} |"):
        convert_audio(str(entry), path)
        assert not redone(path, entry)


def other_take(source):
    write(source, tone(16_000, hertz=300))
    return source


def older_file(source):
    """As from a backup: of the same size."""
    os.utime(source, ns=(10**18, 10**18))
    return source


def same_date(source):
    """Another file of the same date and name's length."""
    times = source.stat().st_atime_ns, source.stat().st_mtime_ns
    copy = source.with_name("b.wav")
    copy.write_bytes(source.read_bytes())
    os.utime(copy, ns=times)
    return copy


def same_date_longer(source):
    times = source.stat().st_atime_ns, source.stat().st_mtime_ns
    write(source, tone(16_000, seconds=2.0))
    os.utime(source, ns=times)
    return source


CHANGES = [other_take, older_file, same_date, same_date_longer]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("entry", ["{}", "cat {} |", "cat <'{}'|"])
def test_audio_of_a_changed_source_is_converted_again(source, path, change, entry):
    convert_audio(entry.format(source), path)
    entry = entry.format(change(source))
    assert redone(path, entry)
    np.testing.assert_allclose(read_audio(path), read_audio(entry), atol=2**-15)


def test_audio_of_another_command_is_converted_again(source, path):
    convert_audio(f"cat {source} |", path)
    assert redone(path, f"cat  {source} |")


@pytest.mark.parametrize("content", [b"", b"half of a file"])
def test_broken_or_foreign_files_are_converted_again(source, path, content):
    path.write_bytes(content)
    assert redone(path, source)
    write(path, tone(16_000))
    assert redone(path, source)


def test_a_source_that_is_gone_is_an_error(source, path):
    convert_audio(str(source), path)
    source.unlink()
    with pytest.raises(ValueError, match="a.wav must be a readable audio file"):
        convert_audio(str(source), path)
