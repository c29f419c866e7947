"""CTranslate2's folder comes back through our own reader as it went."""

import json
import sys

import pytest
import torch

from espnet_lora_experts.whisper.backbone import Backbone
from espnet_lora_experts.whisper.convert_ct2 import read_ct2
from espnet_lora_experts.whisper.export import ct2
from espnet_lora_experts.whisper.export.folded import fold
from espnet_lora_experts.whisper.folder import load_system
from espnet_lora_experts.whisper.systems import System

pytest.importorskip("ctranslate2")


@pytest.fixture
def folded(saved):
    return fold(*load_system(saved / "multi")[:2])


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "ct2").mkdir()
    return tmp_path / "ct2"


@pytest.mark.parametrize("name", ["float32", "float16"])
def test_tensors_are_bit_exact_or_rounded(folded, folder, name):
    ct2.write(folder, folded, name)
    options, read = read_ct2(folder / "model.bin")
    assert options["encoder/num_heads"] == folded.config.encoder_attention_heads
    assert read.keys() == folded.state.keys()
    for key, tensor in read.items():
        expected = folded.state[key].to(getattr(torch, name)).float()
        assert torch.equal(tensor, expected), key


def test_imported_again_it_is_the_system(saved, folded, folder, mel, logits):
    ct2.write(folder, folded, "float32")
    plain = Backbone.from_pretrained(str(folder))
    got = logits(plain, System(["es"]), mel)
    expected = logits(*load_system(saved / "multi")[:2], mel)
    torch.testing.assert_close(got, expected)


def test_int8_is_quantised(folded, folder):
    ct2.write(folder, folded, "int8")
    with pytest.raises(ValueError, match="must be f32 or f16, but got"):
        read_ct2(folder / "model.bin")


def test_faster_whisper_finds_what_it_needs(folded, folder):
    ct2.write(folder, folded, "float32")
    needed = {"model.bin", "tokenizer.json", "preprocessor_config.json"}
    assert {path.name for path in folder.iterdir()} >= needed
    config = json.loads((folder / "config.json").read_text())
    assert config["lang_ids"] == sorted(folded.generation.lang_to_id.values())
    assert config["suppress_ids"] == folded.generation.suppress_tokens
    assert config["suppress_ids_begin"] == []
    assert {path.name for path in folder.parent.iterdir()} == {"ct2"}


def test_an_unknown_type_is_named():
    with pytest.raises(ValueError, match="must be one of .*int8.*, but got 'int3'"):
        ct2.check("int3")


def test_a_missing_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ctranslate2", None)
    with pytest.raises(ValueError, match=r"pip install 'espnet_lora_experts\[export\]"):
        ct2.check("float32")
