"""The command exports, says how to load it, and measures it beside the system."""

import re
import subprocess
import sys

import pytest
import torch

from espnet_lora_experts.bin import export
from espnet_lora_experts.inference import Speech2Text
from espnet_lora_experts.whisper.backbone import Backbone
from espnet_lora_experts.whisper.export import engines
from espnet_lora_experts.whisper.folder import save_system
from espnet_lora_experts.whisper.systems import Experts, MoLE, Single

LANGS = ["es", "ru"]


@pytest.fixture(scope="module")
def trained(folder_30s, add_random, tmp_path_factory):
    path = tmp_path_factory.mktemp("exp")
    backbone = Backbone.from_pretrained(str(folder_30s))
    add_random(backbone.bank, [*LANGS, "multi"])
    torch.manual_seed(0)
    save_system(path / "multi", backbone, Single(LANGS, "multi"))
    save_system(path / "mono", backbone, Experts(LANGS))
    save_system(path / "mole", backbone, MoLE(backbone, LANGS, 1))
    return path


@pytest.fixture(scope="module")
def test_set(write_data, tmp_path_factory):
    utts = {"a": ("ru", 0.4, "да"), "b": ("es", 0.7, "qué"), "c": ("ru", 0.5, "нет")}
    return write_data(tmp_path_factory.mktemp("raw") / "test", utts)


@pytest.fixture
def run(trained, tmp_path, capsys):
    """Runs the command; gives what it prints and where it wrote."""

    def run(name, to, *options):
        out = tmp_path / "out"
        export.main([str(trained / name), "--to", to, str(out), *map(str, options)])
        return capsys.readouterr().out, out

    return run


def test_transformers_hears_what_we_hear_in_padded_clips(run, test_set):
    printed, out = run("multi", "huggingface", "--test_set", test_set)
    assert f'pipeline("automatic-speech-recognition", model="{out}")' in printed
    assert "3 of 3 transcripts are equal" in printed
    rates = re.findall(r"^(\d+\.\d) \[.*\]  (\w+), (.*)$", printed, re.M)
    ours, padded, theirs = rates
    assert (ours[1], padded[1], theirs[1]) == ("Speech2Text",) * 2 + ("transformers",)
    assert theirs[2] == str(out) and padded[2].endswith("clips padded to 30 s")
    assert theirs[0] == padded[0]


def test_one_expert_is_measured_on_its_language(run, test_set):
    printed, _ = run(
        "mono", "huggingface", "--lang", "ru", "--test_set", test_set, "--dtype=float32"
    )
    assert "one Whisper for ru, float32" in printed
    assert "language given, 2 clips" in printed
    assert "2 of 2 transcripts" in printed


def test_a_mole_is_exported_as_experts_and_router(run, test_set):
    printed, out = run("mole", "huggingface", "--with_backbone", "--test_set", test_set)
    assert "mole of es ru as PEFT experts and router; backbone: in it" in printed
    assert "3 of 3 transcripts are equal" in printed
    assert Speech2Text.from_pretrained(out).backbone.name == str(out / "backbone")


def test_transcripts_that_differ_are_listed():
    clips = export.Clips(["a", "b"], ["es", "es"], ["uno", "dos"], [])
    listed = export.differences(clips, ["uno", "dos"], ["uno", "tos"])
    assert listed.splitlines()[0].startswith("1 of 2 transcripts")
    assert listed.splitlines()[1:] == ["b: 'dos' | 'tos'"]
    assert export.rate(clips, ["Uno!", "tos"]).startswith("50.0 [")


def test_a_test_set_without_the_language_is_named_first(run, trained, write_data):
    data = write_data(trained / "raw", {"a": ("ru", 0.1, "да")})
    with pytest.raises(ValueError, match="clips in the language 'es', but has none; i"):
        run("mono", "ggml", "--lang", "es", "--test_set", data)
    assert not (data.parent / "out").exists()


def test_a_clip_over_30_s_is_named_first(run, tmp_path, write_data):
    data = write_data(tmp_path / "raw", {"long": ("es", 30.1, "qué")})
    with pytest.raises(ValueError, match=r"at most 30 s, but got \['long'\]; leave"):
        run("multi", "huggingface", "--test_set", data)
    assert not (tmp_path / "out").exists()


def test_an_existing_place_is_kept(run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years")
    for options in ((), ("--force",)):
        with pytest.raises(ValueError, match="out must be"):
            run("multi", "huggingface", *options)
    assert [p.name for p in tmp_path.rglob("*")] == ["out", "thesis.tex"]


@pytest.mark.parametrize(
    ("package", "engine"),
    [
        ("faster_whisper", engines.faster_whisper),
        ("pywhispercpp.model", lambda out: engines.whisper_cpp(out, None)),
    ],
)
def test_a_missing_program_names_the_extra(monkeypatch, tmp_path, package, engine):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=r"'espnet_lora_experts\[export\]'"):
        engine(tmp_path)


def test_bad_input_ends_with_its_message(trained, tmp_path):
    command = [sys.executable, "-m", export.__name__, str(tmp_path / "none")]
    command += ["--to", "huggingface", str(tmp_path / "out")]
    done = subprocess.run(command, text=True, capture_output=True)
    assert done.returncode == 1
    assert f"error: {tmp_path}/none must be a system's folder" in done.stderr
    assert "Traceback" not in done.stderr
