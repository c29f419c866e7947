"""Dump dirs of ESPnet's asr.sh: taken as they are, or it is said what they lack."""

import kaldiio
import numpy as np
import pytest
import soundfile
from espnet2.train.dataset import ESPnetDataset

from espnet_lora_experts.bin import format_data
from espnet_lora_experts.report.kaldi import read_table
from espnet_lora_experts.whisper.audio import read_audio
from espnet_lora_experts.whisper.wav_scp import read_entry

UTTS = {
    "es_1": ("es", 0.1, "uno"),
    "es-2": ("es", 0.1, "dos"),
    "ru_1": ("ru", 0.2, "а"),
}


@pytest.fixture
def dump(tmp_path, write_data, write_table):
    """A dump dir as asr.sh leaves it, without languages."""
    folder = write_data(tmp_path / "dump", UTTS)
    (folder / "utt2lang").unlink()
    write_table(folder / "utt2num_samples", dict.fromkeys(UTTS, 1600))
    return folder


@pytest.fixture
def ark(dump):
    """The same with its audio in an archive, as with ESPnet's ``flac.ark``."""
    wavs = read_table(dump / "wav.scp")
    for utt, path in wavs.items():
        samples, rate = soundfile.read(path, dtype="int16")
        kaldiio.save_ark(
            str(dump / "data_wav.ark"),
            {utt: (samples, rate)},
            scp=str(dump / "wav.scp"),
            append=utt != "es_1",
            write_function="soundfile",
            write_kwargs={"format": "flac", "subtype": None},
        )
    return dump, wavs


def check(folder, langs):
    format_data.main(["--check_dirs", str(folder), "--langs", langs])


def test_languages_follow_from_ids(dump):
    check(dump, "es ru")
    assert read_table(dump / "utt2lang") == {utt: utt[:2] for utt in UTTS}


def test_one_language_is_everybody_s(dump):
    check(dump, "ca")
    assert set(read_table(dump / "utt2lang").values()) == {"ca"}


def test_languages_that_are_there_stay(dump, write_table):
    write_table(dump / "utt2lang", dict.fromkeys(UTTS, "be"))
    check(dump, "es ru")
    assert set(read_table(dump / "utt2lang").values()) == {"be"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (None, "has none, and 1 of 3 ids do not .* of es fr, such as ru_1; write it"),
        ({"es_1": "es"}, "lacks 2, such as"),
        (dict.fromkeys(UTTS, "eng"), "must be a code of the table, but got 'eng'"),
    ],
)
def test_languages_that_do_not_follow_are_asked_for(dump, write_table, rows, message):
    if rows:
        write_table(dump / "utt2lang", rows)
    with pytest.raises(ValueError, match=message):
        check(dump, "es fr")


@pytest.mark.parametrize("name", ["text", "utt2num_samples"])
def test_a_missing_table_is_named(dump, name):
    (dump / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"{name} must exist"):
        check(dump, "es ru")


def test_archives_are_read_as_training_reads_them(ark):
    dump, wavs = ark
    check(dump, "es ru")
    places = read_table(dump / "wav.scp")
    data = [(str(dump / "wav.scp"), "speech", "kaldi_ark")]
    theirs = ESPnetDataset(data, preprocess=None)
    for utt, path in wavs.items():
        assert ".ark:" in places[utt]
        ours = read_entry(places[utt])
        np.testing.assert_allclose(ours, read_audio(path), atol=2**-15)
        np.testing.assert_allclose(ours, theirs[utt][1]["speech"], atol=2**-15)


@pytest.mark.parametrize("kind", ["features", "nothing"])
def test_an_archive_without_audio_is_named(ark, write_table, kind):
    dump, _ = ark
    if kind == "features":
        kaldiio.save_ark(f"{dump}/f.ark", {"es_1": np.ones((4, 3), np.float32)})
        place = f"{dump}/f.ark:5"
    else:
        place = f"{dump}/absent.ark:5"
    write_table(dump / "wav.scp", {"es_1": place})
    with pytest.raises(ValueError, match="utterance es_1 must be a file at 16000"):
        check(dump, "es ru")
    with pytest.raises(ValueError, match="ark:5 must be"):
        read_entry(place)
