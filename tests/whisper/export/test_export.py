"""A system is exported whole, or an error says why not and nothing is written."""

import json

import pytest
from huggingface_hub import ModelCard
from safetensors.torch import load_file

from espnet_lora_experts.whisper.description import read_description, write_description
from espnet_lora_experts.whisper.export import Options, export
from espnet_lora_experts.whisper.folder import load_system, save_system
from espnet_lora_experts.whisper.systems import Single


def weights(out):
    return load_file(out / "model.safetensors")["model.decoder.layers.0.fc1.weight"]


def test_a_language_s_expert_is_its_own_whisper(saved, tmp_path):
    for lang in ("es", "ru"):
        facts = export(saved / "mono", tmp_path / lang, Options("huggingface", lang))
        assert facts == json.loads((tmp_path / lang / "export.json").read_text())
        assert (facts["languages"], facts["type"]) == ([lang], "folded")
    assert not weights(tmp_path / "es").equal(weights(tmp_path / "ru"))


@pytest.mark.parametrize(
    ("to", "file"),
    [
        ("huggingface", "out/model.safetensors"),
        ("ctranslate2", "out/model.bin"),
        ("ggml", "out"),
    ],
)
def test_every_format_is_written_where_asked(saved, tmp_path, to, file):
    if to == "ctranslate2":
        pytest.importorskip("ctranslate2")
    export(saved / "full", tmp_path / "out", Options(to))
    assert (tmp_path / file).is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("to", "library", "load"),
    [
        ("huggingface", "transformers", 'model="mine")'),
        ("ctranslate2", "ctranslate2", 'WhisperModel("mine").transcribe('),
    ],
)
def test_a_folder_has_a_card_that_names_it(saved, tmp_path, to, library, load):
    if to == "ctranslate2":
        pytest.importorskip("ctranslate2")
    export(saved / "mono", tmp_path / "mine", Options(to, lang="ru"))
    card = ModelCard((tmp_path / "mine/README.md").read_text(encoding="utf-8"))
    assert card.data.language == ["ru"]
    assert card.data.library_name == library
    assert card.data.base_model_relation == "finetune"
    assert card.text.startswith("\n# mine\n") and load in card.text
    assert "| languages | Russian (ru) |" in card.text and "peft" not in card.text


@pytest.mark.parametrize("name", ["mono", "mole"])
def test_cards_of_experts_name_the_place_they_are_in(saved, tmp_path, name):
    export(saved / name, tmp_path / "mine", Options("huggingface"))
    card = (tmp_path / "mine/README.md").read_text(encoding="utf-8")
    assert 'Speech2Text.from_pretrained("mine"' in card
    card = (tmp_path / "mine/experts/ru/README.md").read_text(encoding="utf-8")
    assert "mine/experts/ru" in card


def test_whisper_cpp_gets_the_floats_that_it_runs():
    assert Options("ggml").weights == "float16"
    assert Options("ggml", dtype="float32").weights == "float32"
    assert Options("huggingface").weights == "float32"


def test_a_failure_keeps_the_earlier_export(saved, tmp_path):
    """French has no token in this vocabulary, which is noticed while writing."""
    out, bad = tmp_path / "out", tmp_path / "bad"
    export(saved / "multi", out, Options("huggingface"))
    before = {path: path.read_bytes() for path in out.iterdir()}
    save_system(bad, load_system(saved / "multi")[0], Single(["es", "fr"], "multi"))
    with pytest.raises(ValueError, match="token of language 'fr'"):
        export(bad, out, Options("huggingface"), force=True)
    assert {path: path.read_bytes() for path in out.iterdir()} == before
    assert {path.name for path in tmp_path.iterdir()} == {"out", "bad"}


@pytest.mark.parametrize("to", ["ctranslate2", "ggml"])
@pytest.mark.parametrize("name", ["mono", "mole"])
def test_experts_are_not_one_whisper(saved, tmp_path, name, to):
    if to == "ctranslate2":
        pytest.importorskip("ctranslate2")
    with pytest.raises(ValueError, match="give --lang .*, distil it .*--to huggingf"):
        export(saved / name, tmp_path / "out", Options(to))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("multi", {"lang": "de"}, "--lang must be a language of .*, es ru ja, but got"),
        ("multi", {"lang": "xx"}, "language must be a code of the table, but got 'xx'"),
        ("multi", {"with_backbone": True}, "multi is folded into its backbone; leave"),
        ("mole", {"dtype": "float16"}, "--dtype must be left out for the experts of"),
        ("none", {}, "none must be a system's folder, or a hub id"),
    ],
)
def test_what_a_system_has_not_is_named(saved, tmp_path, name, options, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        export(saved / name, tmp_path / "out", Options("huggingface", **options))
    assert [*tmp_path.iterdir()] == []


def test_two_passes_are_two_systems(saved, tmp_path):
    what = read_description(saved / "mono")
    write_description(tmp_path / "two_pass", {**what, "type": "two_pass"})
    with pytest.raises(ValueError, match="two_pass is two of them; export the folder"):
        export(tmp_path / "two_pass", tmp_path / "out", Options("huggingface"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"to": "onnx"}, "--to must be one of .*'ggml'.*, but got 'onnx'"),
        ({"to": "ggml", "dtype": "int8"}, "--dtype must be one of .*, but got 'int8'"),
        ({"to": "ctranslate2", "dtype": "float16"}, "give --quantization float16"),
        ({"to": "ggml", "quantization": "int8"}, "with --to ctranslate2 only, but got"),
    ],
)
def test_options_that_do_not_fit_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        Options(**options)
