"""A data dir's files and commands: read, and converted once."""

import os
import resource

import numpy as np
import pytest
import soundfile

from espnet_lora_experts.whisper.audio import read_audio
from espnet_lora_experts.whisper.wav_scp import convert_entry, read_entry


def tone(rate, seconds=0.5, hertz=440.0):
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)


def write(path, samples, rate=16_000, **kwargs):
    soundfile.write(path, samples, rate, **kwargs)
    return path


@pytest.mark.parametrize("channels", [1, 2])
def test_pipe_is_the_file_it_writes(tmp_path, channels):
    path = write(tmp_path / "a.wav", np.stack([tone(16_000)] * channels, axis=1))
    assert np.array_equal(read_entry(f"cat {path} |"), read_audio(path))


def test_pipe_may_leave_the_length_open(tmp_path):
    """As sox and ffmpeg do, who cannot go back to fill it in."""
    path = write(tmp_path / "a.wav", tone(16_000))
    data = bytearray(path.read_bytes())
    expected = read_audio(path)
    for at in 4, data.index(b"data") + 4:
        data[at : at + 4] = b"\xff" * 4
    path.write_bytes(data)
    assert np.array_equal(read_entry(f"cat {path} |"), expected)


@pytest.mark.parametrize("command", ["false |", "echo no audio |", "no-such-command |"])
def test_pipe_that_fails_is_named(command):
    with pytest.raises(ValueError, match="must be a readable audio file") as error:
        read_entry(command)
    assert str(error.value).startswith(command)


def test_pipe_that_fails_in_the_end_is_no_audio(tmp_path):
    path = write(tmp_path / "a.wav", tone(16_000))
    with pytest.raises(ValueError, match="exit status 3"):
        read_entry(f"cat {path}; exit 3 |")


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
    count = convert_entry(str(source), path)
    assert count == soundfile.info(path).frames == len(soundfile.read(path)[0])
    return (path.stat().st_ino, path.stat().st_mtime_ns) != before


def test_converted_audio_is_what_is_read(source, path):
    assert convert_entry(str(source), path) == 8000
    assert [*path.parent.iterdir()] == [path]
    info = soundfile.info(path)
    assert (info.samplerate, info.channels, info.format) == (16_000, 1, "FLAC")
    np.testing.assert_allclose(read_audio(path), read_audio(source), atol=2**-15)


def test_converted_audio_stays_while_its_source_does(source, path):
    for entry in (source, f"cat {source} |"):
        convert_entry(str(entry), path)
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
    convert_entry(entry.format(source), path)
    entry = entry.format(change(source))
    assert redone(path, entry)
    np.testing.assert_allclose(read_audio(path), read_entry(entry), atol=2**-15)


def test_audio_of_another_command_is_converted_again(source, path):
    convert_entry(f"cat {source} |", path)
    assert redone(path, f"cat  {source} |")


@pytest.mark.parametrize("content", [b"", b"half of a file"])
def test_broken_or_foreign_files_are_converted_again(source, path, content):
    path.write_bytes(content)
    assert redone(path, source)
    write(path, tone(16_000))
    assert redone(path, source)


def test_a_source_that_is_gone_is_an_error(source, path):
    convert_entry(str(source), path)
    source.unlink()
    with pytest.raises(ValueError, match="a.wav must be a readable audio file"):
        convert_entry(str(source), path)


def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path):
    """Not a shorter file, as libsndfile leaves one without a word."""
    source = tmp_path / "a.wav"
    soundfile.write(source, np.random.RandomState(0).uniform(-1, 1, 16_000), 16_000)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            convert_entry(str(source), tmp_path / "out" / "a.flac")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [*(tmp_path / "out").iterdir()] == []
