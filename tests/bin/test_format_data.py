"""Stage 2: everything that can be wrong in a data dir is counted or an error."""

import logging
import re

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


ODD = ["id10/5r0/01", "id10%2F5r0%2F01", "..", ".a", "a", "~", "я" * 60, "я" * 61]


def test_any_utterance_id_gets_a_file_of_its_own(run, data, write_table):
    """A slash as in VoxCeleb, a dot in front, more bytes than a file name holds."""
    samples = {utt: np.full(1600 + i, 0.1) for i, utt in enumerate(ODD)}
    wavs = {utt: data / f"{len(sound)}.wav" for utt, sound in samples.items()}
    for utt, path in wavs.items():
        soundfile.write(path, samples[utt], 16_000)
    write_table(data / "wav.scp", wavs)
    write_table(data / "text", dict.fromkeys(ODD, "uno"))
    write_table(data / "utt2lang", dict.fromkeys(ODD, "es"))
    dump = run(langs="es")
    ours = read(dump / "wav.scp")
    assert list(ours) == list(read(dump / "text")) == sorted(ODD)
    for utt, path in ours.items():
        assert soundfile.info(path).frames == len(samples[utt])
        name = path.removeprefix(f"{dump}/data/")
        assert re.fullmatch(r"[A-Za-z0-9%_-][A-Za-z0-9%._~-]*\.flac", name)
        assert len(name) < 210


def test_stereo_at_44_kHz_becomes_mono_at_16(run, tmp_path, write_data):
    write_data(tmp_path / "data", UTTS, rate=44_100, channels=2, suffix="wav")
    dump = run()
    for utt, path in read(dump / "wav.scp").items():
        info = soundfile.info(path)
        assert (info.samplerate, info.channels, info.format) == (16_000, 1, "FLAC")
        assert abs(info.duration - UTTS[utt][1]) < 1e-3
        assert info.frames == int(read(dump / "utt2num_samples")[utt])


@pytest.mark.parametrize(
    "options, text",
    [
        ("--text_policy raw", "Да, нет!"),
        ("--text_policy lower", "да, нет!"),
        ("--text_policy normalized", "да нет"),
        ("--text_case lower", "да, нет!"),
        ("--text_punctuation remove", "Да нет"),
        ("--text_policy normalized --text_case keep", "Да нет"),
        ("--text_policy lower --text_punctuation remove", "да нет"),
    ],
)
def test_text_policy(run, data, options, text):
    assert read(run(*options.split()) / "text")["b-ru"] == text


def test_lower_case_is_the_languages_own():
    assert format_data.apply_policy("ISI, İki", "tr", "lower", "keep") == "ısı, iki"


def test_punctuation_that_is_kept_is_not_rewritten():
    assert format_data.apply_policy("你好，ё…", "zh", "keep", "keep") == "你好，ё…"


def test_a_text_may_hold_any_separator_but_a_newline(run, data, write_table):
    write_table(data / "text", {utt: f"uno\u2028dos\x85tres\t{utt}" for utt in UTTS})
    dump = run("--keep_other_script", "true")
    assert read(dump / "text")["a-es"] == "uno dos tres a-es"


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
    warning = f"{data}: left out 1 utterance(s): each {reason}: c-es"
    assert warning in [
        r.getMessage() for r in caplog.records if r.levelname == "WARNING"
    ]
    assert f"{data}: kept 2 utterances" in caplog.text
    for name in ("wav.scp", "text", "utt2lang", "utt2spk", "utt2num_samples"):
        assert list(read(dump / name)) == ["a-es", "b-ru"]


def mix_scripts(data, write_table):
    """One of two Spanish texts is Russian, whose own may have a name in Latin."""
    write_table(data / "text", {"a-es": "uno", "b-ru": "это YouTube", "c-es": "Два"})


def test_texts_in_another_script_are_left_out_or_kept(run, data, write_table, caplog):
    mix_scripts(data, write_table)
    assert list(read(run() / "text")) == ["a-es", "b-ru"]
    assert "each has text mostly in another script than Latin (es): c-es" in caplog.text
    assert list(read(run("--keep_other_script", "true") / "text")) == sorted(UTTS)


def test_a_warning_names_the_first_few(run, data, write_data, write_table, caplog):
    names = [f"{i}-es" for i in range(1, 8)]
    utts = UTTS | dict.fromkeys(names, ("es", 0.2, "uno"))
    write_data(data, utts)
    texts = {utt: row[2] for utt, row in UTTS.items()}
    write_table(data / "text", texts)
    run()
    assert (
        "left out 7 utterance(s): each has no text: 1-es 2-es 3-es 4-es 5-es ..."
        in caplog.text
    )


def test_a_language_without_utterances_stops_before_anything_is_written(run, data):
    with pytest.raises(ValueError, match=r"data must have .* none of French \(fr\)"):
        run(langs="es fr ru")
    assert not (data.parent / "dump/text").exists()


def test_few_utterances_of_a_language_are_named(run, data, write_data, caplog):
    run()
    assert f"{data}: only 2 utterance(s) of Spanish (es), too few" in caplog.text
    caplog.clear()
    many = {f"{i}-es": ("es", 0.2, "uno") for i in range(10)}
    write_data(data, many | UTTS)
    run()
    assert (
        "of Spanish" not in caplog.text and "1 utterance(s) of Russian" in caplog.text
    )


def format_pooled(tmp_path, write_data, langs):
    dirs = {lang: tmp_path / f"t_{lang}" for lang in ("es", "ru")}
    for lang, folder in dirs.items():
        utts = {utt: row for utt, row in UTTS.items() if row[0] == lang}
        write_data(folder, utts)
    ins = " ".join(map(str, dirs.values()))
    outs = " ".join(f"{folder}_dump" for folder in dirs.values())
    options = ["--in_dirs", ins, "--out_dirs", outs, "--pooled_dirs", ins]
    format_data.main([*options, "--langs", langs])


def test_pooled_sets_need_every_language_together(tmp_path, write_data):
    format_pooled(tmp_path, write_data, "es ru")
    with pytest.raises(ValueError, match=r"t_es .*t_ru must have .* French \(fr\)"):
        format_pooled(tmp_path, write_data, "es ru fr")


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


def test_rerun_takes_the_audio_that_was_replaced(run, data, write_table):
    dump = run()
    soundfile.write(data / "a-es.flac", np.full(4000, 0.25), 16_000)  # another take
    wavs = read(data / "wav.scp")
    write_table(data / "wav.scp", wavs | {"b-ru": wavs["c-es"]})  # another file
    run()
    samples = {"a-es": "4000", "b-ru": "16000", "c-es": "16000"}
    assert read(dump / "utt2num_samples") == samples
    ours = read(dump / "wav.scp")
    assert np.array_equal(soundfile.read(ours["a-es"])[0], np.full(4000, 0.25))
    same = [soundfile.read(ours[utt])[0] for utt in ("b-ru", "c-es")]
    assert np.array_equal(*same)


def test_durations_are_in_seconds(run, data):
    dump = run("--min_wav_duration", "0.6", langs="es")
    assert list(read(dump / "text")) == ["a-es", "c-es"]
    assert list(read(run("--max_wav_duration", "0.7") / "text")) == ["a-es", "b-ru"]


@pytest.mark.parametrize(
    "options, message",
    [
        (["--min_wav_duration", "2", "--max_wav_duration", "1"], "but got 2.0 and 1.0"),
        (["--min_wav_duration", "-1"], "must be seconds with 0 <= min < max"),
        (["--max_wav_duration", "31"], "max <= 30.0 .*, but got 0.1 and 31.0"),
        (["--max_wav_duration", "nan"], "but got 0.1 and nan"),
        (["--nj", "0"], "--nj must be 1 or more threads, but got 0"),
        (["--langs", " "], "--langs must be language codes, but got none"),
    ],
)
def test_options_that_do_not_fit_are_errors(run, data, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        run(*options)
    assert not (tmp_path / "dump").exists()


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


def check(*folders):
    format_data.main(["--check_dirs", " ".join(map(str, folders))])


def test_what_is_formatted_passes_the_check(run, data):
    dump = run()
    before = sorted(dump.rglob("*"))
    check(dump, dump)
    assert sorted(dump.rglob("*")) == before


@pytest.mark.parametrize("right", [0, 5])  # the first ones, or any other
def test_check_names_audio_at_another_rate(run, data, tmp_path, write_data, right):
    """Such audio is heard at another speed: ESPnet's reader drops the rate."""
    names = [f"u{i:02d}" for i in range(40)]
    own = write_data(tmp_path / "own", dict.fromkeys(names, ("es", 0.01, "x")), 8000)
    for utt in names[:right]:
        soundfile.write(own / f"{utt}.flac", np.zeros(160), 16_000)
    message = r"own: utterance u\d\d must be a file at 16000 Hz, but got 8000 .*stage 2"
    with pytest.raises(ValueError, match=message) as error:
        check(run(), own)
    assert (f"utterance {names[0]}" in str(error.value)) is (right == 0)


def test_check_names_audio_that_training_cannot_read(data, write_table):
    for wav in (f"cat {data}/a-es.flac |", f"{data}/missing.flac", f"{data}/text"):
        write_table(data / "wav.scp", {"a-es": wav})
        with pytest.raises(ValueError, match="utterance a-es must be a file.*Error"):
            check(data)
    (data / "wav.scp").unlink()
    with pytest.raises(FileNotFoundError, match="wav.scp must exist"):
        check(data)


def test_check_is_a_task_of_its_own(run, data, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run("--check_dirs", str(data))
    assert (
        "--check_dirs: not allowed with argument --in_dirs" in capsys.readouterr().err
    )
    with pytest.raises(SystemExit):
        format_data.main(["--langs", "es"])
    assert "one of the arguments --in_dirs --check_dirs" in capsys.readouterr().err
