"""Experts and router are exported as a system that loads by itself."""

import shutil

import pytest
import torch
from peft import PeftModel
from transformers import WhisperForConditionalGeneration

from espnet_lora_experts.whisper.description import read_description
from espnet_lora_experts.whisper.export import Options, export
from espnet_lora_experts.whisper.folder import load_system

HF = Options("huggingface")


@pytest.mark.parametrize(("name", "lang"), [("mole", None), ("mono", "ru")])
def test_exported_is_the_system(saved, tmp_path, mel, logits, name, lang):
    facts = export(saved / name, tmp_path / "out", HF)
    expected = logits(*load_system(saved / name)[:2], mel, lang)
    loaded, system, what = load_system(tmp_path / "out")
    assert torch.equal(logits(loaded, system, mel, lang), expected)
    assert (facts["type"], what["steps"]) == (what["type"], 7)
    assert what == read_description(saved / name)


def test_with_its_backbone_it_needs_nothing_else(
    saved, folder_30s, tmp_path, mel, logits
):
    elsewhere = tmp_path / "whisper"
    shutil.copytree(folder_30s, elsewhere)
    backbone, system, _ = load_system(saved / "mole")
    expected = logits(backbone, system, mel)
    moved = tmp_path / "mole"
    shutil.copytree(saved / "mole", moved)
    text = (moved / "system.json").read_text()
    (moved / "system.json").write_text(text.replace(str(folder_30s), str(elsewhere)))
    options = Options("huggingface", with_backbone=True)
    export(moved, tmp_path / "out", options)
    shutil.rmtree(elsewhere)
    loaded, again, what = load_system(tmp_path / "out")
    assert torch.equal(logits(loaded, again, mel), expected)
    assert what["backbone"]["name"] == "backbone"
    whisper = WhisperForConditionalGeneration.from_pretrained(
        tmp_path / "out" / "backbone"
    )
    plain = PeftModel.from_pretrained(whisper, tmp_path / "out" / "experts" / "ru")
    assert plain.active_adapters == ["default"]
