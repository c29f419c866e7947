"""Stage 2: everything that can be wrong in a data dir is counted or an error."""

import logging

import numpy as np
import pytest
import soundfile

from espnet_lora_experts.bin import format_data

UTTS = {  # not sorted
    "b-ru": ("ru", 0.5, "Да,  нет!"),
    "a-es": ("es", 0.7, "¿Uno? Dos"),
    "c-es": ("es", 1.0, "tres"),
}


@pytest.fixture
def run(tmp_path):
    """Formats ``tmp_path/data``; gives the dump dir."""

    def run(*options, langs="es ru"):
        dirs = ["--in_dirs", f"{tmp_path}/data", "--out_dirs", f"{tmp_path}/dump"]
        format_data.main([*dirs, "--langs", langs, *options])
        return tmp_path / "dump"

    return run


@pytest.fixture
def data(tmp_path, write_data):
    return write_data(tmp_path / "data", UTTS)


def read(path):
    return dict(line.split(" ", 1) for line in path.read_text("utf-8").splitlines())


def test_tables_are_sorted_and_complete(run, data, write_table):
    write_table(data / "utt2spk", {"b-ru": "s2", "a-es": "s1", "c-es": "s2"})
    dump = run()
    names = ["wav.scp", "text", "utt2lang", "utt2spk", "utt2num_samples"]
    tables = {name: read(dump / name) for name in names}
    assert all(list(table) == sorted(UTTS) for table in tables.values())
    assert tables["text"] == {"a-es": "¿Uno? Dos", "b-ru": "Да, нет!", "c-es": "tres"}
    assert tables["utt2lang"] == {utt: row[0] for utt, row in UTTS.items()}
    samples = {utt: str(int(row[1] * 16_000)) for utt, row in UTTS.items()}
    assert tables["utt2num_samples"] == samples
    assert read(dump / "spk2utt") == {"s1": "a-es", "s2": "b-ru c-es"}
    assert (dump / "feats_type").read_text() == "raw\n"
    for utt, path in tables["wav.scp"].items():
        ours, rate = soundfile.read(path)
        assert rate == 16_000 and np.array_equal(
            ours, soundfile.read(data / f"{utt}.flac")[0]
        )


def test_speakers_default_to_utterances(run, data):
    assert read(run() / "utt2spk") == {utt: utt for utt in UTTS}


def test_stereo_at_44_kHz_becomes_mono_at_16(run, tmp_path, write_data):
    write_data(tmp_path / "data", UTTS, rate=44_100, channels=2, suffix="wav")
    dump = run()
    for utt, path in read(dump / "wav.scp").items():
        info = soundfile.info(path)
        assert (info.samplerate, info.channels, info.format) == (16_000, 1, "FLAC")
        assert abs(info.duration - UTTS[utt][1]) < 1e-3
        assert info.frames == int(read(dump / "utt2num_samples")[utt])


@pytest.mark.parametrize(
    "policy, text",
    [("raw", "Да, нет!"), ("lower", "да, нет!"), ("normalized", "да нет")],
)
def test_text_policy(run, data, policy, text):
    assert read(run("--text_policy", policy) / "text")["b-ru"] == text


def test_a_text_may_hold_any_separator_but_a_newline(run, data, write_table):
    write_table(data / "text", {utt: f"uno\u2028dos\x85tres\t{utt}" for utt in UTTS})
    assert read(run() / "text")["a-es"] == "uno dos tres a-es"


def test_tables_may_be_separated_by_tabs(run, data):
    for name in ("wav.scp", "text", "utt2lang"):
        table = data / name
        lines = [x.replace(" ", "\t", 1) for x in table.read_text("utf-8").split("\n")]
        table.write_text("\n".join(lines), "utf-8")
    assert read(run() / "text")["a-es"] == "¿Uno? Dos"


def spoil_language(data, write_table):
    write_table(data / "utt2lang", {"a-es": "es", "b-ru": "ru"})


def spoil_code(data, write_table):
    write_table(data / "utt2lang", {"a-es": "es", "b-ru": "ru", "c-es": "xx"})


def spoil_audio(data, write_table):
    (data / "c-es.flac").write_bytes(b"not audio")


def lose_audio(data, write_table):
    (data / "c-es.flac").unlink()


def empty_audio(data, write_table):
    soundfile.write(data / "c-es.flac", np.zeros(0), 16_000)


def short_audio(data, write_table):
    soundfile.write(data / "c-es.flac", np.zeros(100), 16_000)


def long_audio(data, write_table):
    soundfile.write(data / "c-es.flac", np.zeros(480_001), 16_000)


def lose_text(data, write_table):
    write_table(data / "text", {"a-es": "uno", "b-ru": "да"})


def empty_text(data, write_table):
    write_table(data / "text", {"a-es": "uno", "b-ru": "да", "c-es": "  "})


def lose_wav(data, write_table):
    wavs = {utt: data / f"{utt}.flac" for utt in ("a-es", "b-ru")}
    write_table(data / "wav.scp", wavs)


@pytest.mark.parametrize(
    "spoil, reason",
    [
        (spoil_language, "has no language in utt2lang"),
        (spoil_code, "is in xx, not in --langs"),
        (spoil_audio, "has unreadable or empty audio"),
        (lose_audio, "has unreadable or empty audio"),
        (empty_audio, "has unreadable or empty audio"),
        (short_audio, "is not 0.1 to 30.0 s long"),
        (long_audio, "is not 0.1 to 30.0 s long"),
        (lose_text, "has no text"),
        (empty_text, "has no text"),
        (lose_wav, "has no audio in wav.scp"),
    ],
)
def test_unusable_utterances_are_counted_and_left_out(
    run, data, write_table, caplog, spoil, reason
):
    spoil(data, write_table)
    with caplog.at_level(logging.INFO):
        dump = run()
    warning = f"{data}: left out 1 utterance(s): each {reason}"
    assert warning in [
        r.getMessage() for r in caplog.records if r.levelname == "WARNING"
    ]
    assert f"{data}: kept 2 utterances" in caplog.text
    for name in ("wav.scp", "text", "utt2lang", "utt2spk", "utt2num_samples"):
        assert list(read(dump / name)) == ["a-es", "b-ru"]


def test_reasons_are_counted_together(run, data, caplog):
    run(langs="ru")
    assert "left out 2 utterance(s): each is in es, not in --langs" in caplog.text


def test_rerun_keeps_what_is_done(run, data):
    dump = run()
    first = {p: p.stat().st_mtime_ns for p in (dump / "data").iterdir()}
    tables = {p: p.read_text("utf-8") for p in dump.iterdir() if p.is_file()}
    lost = dump / "data/a-es.flac"
    lost.unlink()  # as if the first run had been killed
    (dump / "text").unlink()
    run()
    assert {p: p.read_text("utf-8") for p in dump.iterdir() if p.is_file()} == tables
    again = {p: p.stat().st_mtime_ns for p in (dump / "data").iterdir()}
    assert set(again) == set(first)
    assert {p for p in again if again[p] != first[p]} == {lost}


@pytest.mark.parametrize(
    "spoil, error, message",
    [
        (lambda d: (d / "text").unlink(), FileNotFoundError, "text must exist"),
        (lambda d: (d / "wav.scp").unlink(), FileNotFoundError, "wav.scp must exist"),
        (lambda d: (d / "utt2lang").unlink(), FileNotFoundError, "utt2lang must exist"),
        (
            lambda d: (d / "text").write_text("a-es uno\na-es dos\n"),
            ValueError,
            "text must have each key once, but has 'a-es' twice",
        ),
        (lambda d: (d / "text").write_text(""), ValueError, "none is left; see above"),
    ],
)
def test_broken_data_dirs_are_errors(run, data, spoil, error, message):
    spoil(data)
    with pytest.raises(error, match=message):
        run()


def test_unknown_language_is_an_error(run, data):
    with pytest.raises(ValueError, match="must be a code of the table, but got 'xx'"):
        run(langs="es xx")


def test_every_dir_in_needs_a_dir_out():
    with pytest.raises(ValueError, match="as many as --in_dirs, but got 1 for 2"):
        format_data.main(["--in_dirs", "a b", "--out_dirs", "c", "--langs", "es"])
