"""Speech files become text, line by line or file by file, and none is lost."""

import io
import json
import re

import numpy as np
import pytest
import soundfile

from espnet_lora_experts.bin import transcribe
from espnet_lora_experts.inference import Speech2Text
from espnet_lora_experts.whisper.backbone import Backbone
from espnet_lora_experts.whisper.folder import save_system
from espnet_lora_experts.whisper.systems import Single

LANGS = ["es", "ru"]
SECONDS = {"a": 0.5, "b": 0.9, "c": 0.2, "d": 0.7, "e": 0.4}


@pytest.fixture(scope="module")
def model(folder_30s, add_random, tmp_path_factory):
    """A system of one adapter."""
    path = tmp_path_factory.mktemp("model")
    backbone = Backbone.from_pretrained(str(folder_30s))
    add_random(backbone.bank, ["multi"])
    save_system(path, backbone, Single(LANGS, "multi"))
    return path


@pytest.fixture
def clips(tmp_path, monkeypatch):
    """Names of five clips of noise in the current folder."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.RandomState(0)
    for name, seconds in SECONDS.items():
        noise = rng.uniform(-0.5, 0.5, int(seconds * 16_000))
        soundfile.write(f"{name}.wav", noise, 16_000)
    return [f"{name}.wav" for name in SECONDS]


@pytest.fixture
def run(model, clips, capsys):
    """Transcribes; what was printed, and the error if there was one."""

    def run(*words):
        error = None
        try:
            transcribe.main([*words, "--model", str(model)])
        except ValueError as raised:
            error = str(raised)
        shown, said = capsys.readouterr()
        return shown, said, error

    return run


@pytest.fixture
def expected(model, clips):
    """Text of each clip, from the Python interface."""
    results = Speech2Text.from_pretrained(model)(clips)
    return {c: " ".join(r.text.split()) for c, r in zip(clips, results, strict=True)}


def test_one_file_is_printed(run, expected):
    assert run("b.wav")[::2] == (expected["b.wav"] + "\n", None)


def test_several_files_are_lines_of_path_and_text(run, expected):
    shown, said, error = run(*expected)
    assert shown.splitlines() == [f"{c}\t{text}" for c, text in expected.items()]
    assert error is None and "5/5" in said


def test_json_is_an_object_a_line(run, expected):
    for names in (["a.wav"], [*expected]):
        lines = run(*names, "--format", "json", "--lang", "ru")[0].splitlines()
        said = [json.loads(line) for line in lines]
        assert [row["path"] for row in said] == names
        assert {row["lang"] for row in said} == {"ru"}
        for row in said:
            [segment] = row["segments"]
            assert segment["end"] == pytest.approx(SECONDS[row["path"][0]], abs=1e-3)


def test_a_folder_gets_a_file_of_each_format(run, expected, tmp_path):
    out = tmp_path / "new/out"
    names = ["a.wav", "no.wav", "d.wav"]
    shown, said, _ = run(*names, "--format", "txt,vtt", "--output_dir", str(out))
    assert shown == "" and f"transcribed 2 of 3 files, into {out}\n" in said
    assert {p.name for p in out.iterdir()} == {"a.txt", "a.vtt", "d.txt", "d.vtt"}
    assert (out / "d.txt").read_text("utf-8") == expected["d.wav"] + "\n"
    assert "--> 00:00:00.700\n" in (out / "d.vtt").read_text("utf-8")


def test_subtitles_of_several_files_are_files(run, tmp_path):
    assert "--> 00:00:00,500\n" in run("a.wav", "--format", "srt")[0]
    assert not [*tmp_path.glob("*.srt")]
    assert run("a.wav", "b.wav", "--format", "srt")[0] == ""
    assert {p.name for p in tmp_path.glob("*.srt")} == {"a.srt", "b.srt"}


@pytest.mark.parametrize("words", [[], ["-"], ["a.wav", "-"]])
def test_a_list_comes_from_standard_input(run, expected, words, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("c.wav\n\nd.wav\n"))
    lines = run(*words)[0].splitlines()
    wanted = [*words[:-1], "c.wav", "d.wav"]
    assert lines == [f"{clip}\t{expected[clip]}" for clip in wanted]


def test_unreadable_files_are_named_and_the_others_go_on(run, expected, tmp_path):
    (tmp_path / "broken.wav").write_bytes(b"RIFF nothing")
    soundfile.write("nan.wav", np.array([0.0, np.nan]), 16_000, "FLOAT")
    command = "touch ran; cat a.wav |"  # as a data dir's wav.scp may have
    (tmp_path / command).write_text("no audio")
    bad = ["broken.wav", "nan.wav", "no.wav", command]
    shown, said, error = run("a.wav", *bad, "b.wav")
    lines = [f"{clip}\t{expected[clip]}" for clip in ("a.wav", "b.wav")]
    assert shown.splitlines() == lines
    assert all(f"error: {name} must " in said for name in bad)
    assert "but 4 of 6 are not" in error and not (tmp_path / "ran").exists()


def test_groups_change_nothing(run, expected, monkeypatch):
    whole = run(*expected)[0]
    monkeypatch.setattr(transcribe, "GROUP", 2)
    assert run(*expected)[0] == whole
    monkeypatch.setattr(transcribe, "GROUP_SECONDS", 0.1)
    assert run(*expected)[0] == whole


def test_groups_are_bounded_in_files_and_seconds(clips, monkeypatch):
    monkeypatch.setattr(transcribe, "GROUP", 3)
    groups = [[p for p, _ in g] for g in transcribe.read_groups(clips, pytest.fail)]
    assert groups == [["a.wav", "b.wav", "c.wav"], ["d.wav", "e.wav"]]
    monkeypatch.setattr(transcribe, "GROUP_SECONDS", 1.2)
    groups = [[p for p, _ in g] for g in transcribe.read_groups(clips, pytest.fail)]
    assert groups == [["a.wav"], ["b.wav", "c.wav"], ["d.wav", "e.wav"]]


def test_what_was_done_before_an_interruption_stays(run, expected, monkeypatch):
    """And with --skip_done only the rest is done afterwards."""
    monkeypatch.setattr(transcribe, "GROUP", 2)
    read, asked = transcribe.read, []

    def interrupted(path):
        asked.append(path)
        if path == "d.wav" and len(asked) <= len(expected):
            raise KeyboardInterrupt
        return read(path)

    monkeypatch.setattr(transcribe, "read", interrupted)
    words = [*expected, "--output_dir", "out", "--skip_done"]
    with pytest.raises(KeyboardInterrupt):
        run(*words)
    asked[:] = [*expected, "again"]
    run(*words)
    assert asked[len(expected) + 1 :] == ["c.wav", "d.wav", "e.wav"]
    for clip, text in expected.items():
        with open(f"out/{clip[0]}.txt", encoding="utf-8") as file:
            assert file.read() == text + "\n"


@pytest.mark.parametrize(
    "words, message",
    [
        (["a.wav", "--format", "doc"], r"--format must be of \['txt', .*'doc'"),
        (["a.wav", "--format", ""], "--format must be of"),
        (["a.wav", "--skip_done"], "--skip_done must come with --output_dir"),
        (["a.wav", "--lang", "fr"], "lang must be of this system's"),
        (["a.wav", "--lang", "xx"], "xx"),
        (["a.wav", "b/a.flac", "--output_dir", "o"], "a.wav and b/a.flac are both 'a'"),
        (["a.wav", "b/a.flac", "--format", "srt"], "a.wav and b/a.flac are both 'a'"),
    ],
)
def test_options_that_do_not_fit_are_named(run, words, message):
    shown, _, error = run(*words)
    assert shown == "" and re.search(message, error)


def test_no_files_are_an_error(run, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    assert "standard input must name a file a line" in run()[2]
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    assert "files must be named, or a list of them piped" in run()[2]


def test_every_option_of_decoding_arrives(model, tmp_path):
    options = {"autocast": "bfloat16", "batch_seconds": 7.0, "beam_size": 3}
    options |= {"length_penalty": 0.5, "max_tokens": 9, "maxlenratio": 0.25}
    options["no_repeat_ngram_size"] = 3
    given = [f"--{name}={value}" for name, value in options.items()]
    args = transcribe.get_parser().parse_args(["--model", str(model), *given])
    speech2text = transcribe.load(args)
    arrived = vars(speech2text) | vars(speech2text.recognizer.options)
    assert {name: arrived[name] for name in options} == options
