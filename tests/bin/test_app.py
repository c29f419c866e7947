"""The page's parts that need no gradio: limits, clips, systems, what is shown."""

import logging
import sys

import numpy as np
import pytest
import soundfile

from espnet_lora_experts.bin import app, app_page
from espnet_lora_experts.inference import Result, Speech2Text
from espnet_lora_experts.whisper.backbone import Backbone
from espnet_lora_experts.whisper.description import write_description
from espnet_lora_experts.whisper.folder import describe, save_system
from espnet_lora_experts.whisper.systems import Experts, Single, System

LANGS = ["es", "ru", "ja"]
SPEECH = np.random.RandomState(0).uniform(-0.5, 0.5, 16_000).astype(np.float32)


def parse(*options):
    return app.get_parser().parse_args(options)


def test_by_default_only_this_machine_is_served(caplog):
    app.check(parse())
    assert caplog.text == ""
    assert parse().host == "127.0.0.1"


@pytest.mark.parametrize("options", [["--host", "0.0.0.0"], ["--share", "gradio"]])
def test_a_warning_tells_that_others_can_reach_the_page(options, caplog):
    with caplog.at_level(logging.WARNING):
        app.check(parse(*options))
    assert f"{' '.join(options)}: other machines can reach the app" in caplog.text


@pytest.mark.parametrize("name", ["max_upload_mb", "max_duration"])
def test_a_limit_that_is_none_is_refused(name):
    with pytest.raises(ValueError, match=f"--{name} must be above 0, but got 0"):
        app.check(parse(f"--{name}", "0"))


def test_without_gradio_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "gradio", None)
    for name in ("GRADIO_ANALYTICS_ENABLED", "GRADIO_TEMP_DIR"):
        monkeypatch.setenv(name, "")
    with pytest.raises(ValueError, match=r'install "espnet_lora_experts\[demo\]"'):
        app.import_gradio(str(tmp_path))


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_a_clip_of_any_format_and_rate_is_read(tmp_path, suffix):
    path = tmp_path / f"clip.{suffix}"
    soundfile.write(path, np.stack([SPEECH, SPEECH], axis=1), 44_100)
    samples = app_page.read_clip(str(path), max_duration=1)
    assert samples.ndim == 1
    assert len(samples) == pytest.approx(16_000 * len(SPEECH) / 44_100, rel=0.2)


@pytest.mark.parametrize(
    "name, samples, message",
    [
        ("long.wav", np.tile(SPEECH, 3), "long.wav must be 2 s long at most: cut it"),
        ("mute.wav", SPEECH * 1e-4, "mute.wav is silent: is the microphone muted?"),
        ("text.mp3", None, "text.mp3 cannot be read as audio: upload wav, flac, "),
        ("empty.wav", SPEECH[:0], "empty.wav cannot be read as audio"),
    ],
)
def test_what_cannot_be_transcribed_is_said_in_plain_words(
    tmp_path, name, samples, message
):
    path = tmp_path / name
    if samples is None:
        path.write_text("no audio")
    else:
        soundfile.write(path, samples, 16_000)
    with pytest.raises(ValueError, match=message) as error:
        app_page.read_clip(str(path), max_duration=2)
    assert str(tmp_path) not in str(error.value)


def test_nothing_to_transcribe_is_said():
    with pytest.raises(ValueError, match="There is no speech yet"):
        app_page.read_clip(None, max_duration=2)


def test_an_upload_is_never_run_as_a_command(tmp_path, monkeypatch):
    """As a Kaldi pipe would be."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="cannot be read as audio"):
        app_page.read_clip("touch ran |", max_duration=2)
    assert not (tmp_path / "ran").exists()


@pytest.fixture(scope="module")
def expdir(folder_30s, add_random, tmp_path_factory):
    """Vanilla, two students of one expert's name, language experts, two_pass."""
    path = tmp_path_factory.mktemp("exp")
    for name, scale in ("kd", 0.3), ("kd_logits_only", 0.6):
        backbone = Backbone.from_pretrained(str(folder_30s))
        add_random(backbone.bank, ["student", *LANGS], scale=scale)
        save_system(path / name, backbone, Single(LANGS, "student"))
    save_system(path / "mono", backbone, Experts(LANGS))
    for kind in "vanilla", "two_pass":
        what = describe(backbone, System(LANGS))
        write_description(path / kind, {**what, "type": kind})
    (path / "stats").mkdir()
    return path


NAMES = ["kd", "kd_logits_only", "mono", "vanilla"]


@pytest.fixture(scope="module")
def systems(expdir):
    return app.load_systems(expdir, NAMES)


def test_every_system_of_the_folder_is_found(expdir):
    assert app.find_systems(expdir, "") == NAMES
    assert app.find_systems(expdir, "mono kd mono") == ["mono", "kd"]


def test_a_folder_without_systems_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"but {tmp_path} has none"):
        app.find_systems(tmp_path, "")
    with pytest.raises(FileNotFoundError, match="kd must be a system's folder"):
        app.load_systems(tmp_path, ["kd"])


def test_systems_share_the_memory_of_one_whisper(systems):
    places = [
        {
            weight.data_ptr()
            for name, weight in system.backbone.hf.named_parameters()
            if ".lora_" not in name
        }
        for system in systems.values()
    ]
    assert len(places[0]) > 50
    assert all(place == places[0] for place in places)


@pytest.mark.parametrize("name", NAMES)
def test_a_system_beside_others_is_the_system_alone(expdir, systems, name):
    """Though experts of two systems have the same name."""
    lang = "es" if name == "mono" else None
    alone = Speech2Text.from_pretrained(expdir / name)(SPEECH, lang)
    beside = systems[name](SPEECH, lang)
    assert beside.tokens == alone.tokens
    assert beside.score == alone.score
    assert beside.posteriors == alone.posteriors


def test_experts_take_the_language_that_whisper_finds(systems):
    text, posteriors, facts = app_page.transcribe(
        systems["mono"], SPEECH, app_page.AUTO
    )
    found = systems["vanilla"](SPEECH).lang
    expected = systems["mono"](SPEECH, found)
    assert (text, posteriors) == (expected.text, {})
    language = app_page.name_of(found)
    assert facts.startswith(f"{language} (found by Whisper) · score ")


def test_posteriors_go_by_the_names_of_languages(systems):
    _, posteriors, facts = app_page.transcribe(systems["kd"], SPEECH, app_page.AUTO)
    assert set(posteriors) == {"Spanish", "Russian", "Japanese"}
    assert sum(posteriors.values()) == pytest.approx(1)
    assert facts.startswith(f"{max(posteriors, key=posteriors.get)} (found) · ")


def test_a_given_language_is_taken(systems):
    for name in ("kd", "mono"):
        text, posteriors, facts = app_page.transcribe(systems[name], SPEECH, "ru")
        assert text == systems[name](SPEECH, "ru").text
        assert posteriors == {}
        assert facts.startswith("Russian (given) · ")


def test_a_system_says_which_languages_it_knows(systems):
    shown = app_page.transcribe(systems["kd"], SPEECH, "nl")
    assert shown == ("", {}, "Knows Spanish, Russian, Japanese only.")


def test_what_a_result_lacks_is_said():
    cut = Result("hola", "es", {}, -1.0, ["hola"], ended=False)
    assert app_page.facts(cut, 1.0, 2.0, "given").endswith("cut at the most tokens")
    silent = Result("", "", {}, 0.0, [])
    assert app_page.facts(silent, 1.0, 2.0, "found").startswith("nobody speaks · ")
