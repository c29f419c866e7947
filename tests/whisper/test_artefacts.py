"""Every artefact is told for what it is, with the numbers of what is in it."""

import json
import os
import shutil
import zipfile

import pytest
import torch
from peft import LoraConfig, get_peft_model

from espnet_lora_experts.experts.store import save_expert
from espnet_lora_experts.plugin.checkpoint import trained_state
from espnet_lora_experts.whisper.artefacts import describe
from espnet_lora_experts.whisper.description import write_description
from espnet_lora_experts.whisper.folder import save_system
from espnet_lora_experts.whisper.systems import Experts, MoLE, Single, System

LANGS = ["es", "ru", "ja"]


@pytest.fixture
def exp(trio, tmp_path):
    """Systems as trainings leave them, one of them decoded and scored."""
    facts = {"epochs": 2, "steps": 7, "trained_params": 11, "deployed_params": 13}
    save_system(tmp_path / "exp/mono", trio, Experts(LANGS), facts)
    save_system(tmp_path / "exp/kd", trio, Single(LANGS, "ru"), facts)
    save_system(tmp_path / "exp/mole", trio, MoLE(trio, LANGS, 1), facts)
    decoded = tmp_path / "exp/kd/decode_agnostic/test"
    decoded.mkdir(parents=True)
    (decoded / "text").write_text("a uno\nb\n")
    (decoded / "decode.json").write_text('{"rtf": 0.25}')
    scores = {"kd": {"agnostic": {"avg_wer": 12.5, "lid_acc": 99.0}}}
    (tmp_path / "exp/results.json").write_text(json.dumps({"systems": scores}))
    return tmp_path / "exp"


def size(bank, name):
    return sum(p.numel() for _, p in bank.parameters_of(name))


def test_a_system_tells_its_experts_training_and_results(exp, trio):
    facts = describe(exp / "kd")
    assert (facts["kind"], facts["type"]) == ("system", "single")
    assert facts["languages"] == LANGS and facts["steps"] == 7
    assert facts["backbone"] == trio.name and facts["backbone_sha256"] == trio.sha256
    [expert] = facts["experts"]
    assert (expert["name"], expert["r"], expert["lora_alpha"]) == ("ru", 3, 3)
    assert expert["parameters"] == size(trio.bank, "ru")
    weights = exp / "kd/experts/ru/adapter_model.safetensors"
    assert expert["bytes"] == weights.stat().st_size
    assert expert["target_modules"] == sorted(trio.bank.configs["ru"].target_modules)
    assert "problem" not in expert
    [decode] = facts["decodes"]
    assert (decode["mode"], decode["test_set"]) == ("agnostic", "test")
    assert (decode["utterances"], decode["rtf"], decode["wer"]) == (2, 0.25, 12.5)
    mole = describe(exp / "mole")
    assert (mole["type"], mole["merged_layers"]) == ("mole", 1)
    assert [expert["name"] for expert in mole["experts"]] == LANGS


def test_an_expert_of_another_whisper_is_a_problem(exp, trio):
    metadata = {"backbone_sha256": "a" * 64}
    save_expert(trio.bank, "ru", exp / "mono/experts/ru", "", metadata)
    problems = {e["name"]: e.get("problem") for e in describe(exp / "mono")["experts"]}
    assert problems == {"es": None, "ja": None, "ru": f"is of the backbone {'a' * 12}"}


def test_a_lost_expert_is_named(exp):
    shutil.rmtree(exp / "mono/experts/ja")
    message = "experts of .*system.json must be there, but .*ja must be a PEFT adapter"
    with pytest.raises(FileNotFoundError, match=message):
        describe(exp / "mono")


def test_a_folder_of_systems_is_a_table(exp):
    facts = describe(exp)
    assert facts["kind"] == "systems"
    rows = {row["name"]: row for row in facts["systems"]}
    assert [*rows] == ["kd", "mole", "mono"]
    assert rows["mono"]["experts"] == 3 and rows["mono"]["trained_params"] == 11
    assert rows["kd"]["wer_agnostic"] == 12.5 and rows["kd"]["wer_aware"] is None


def test_an_expert_alone_names_its_backbone(exp, trio):
    facts = describe(exp / "mono/experts/es")
    assert (facts["kind"], facts["type"]) == ("PEFT adapter", "LORA")
    assert facts["backbone_sha256"] == trio.sha256
    assert facts["parameters"] == size(trio.bank, "es")


def test_an_adapter_of_plain_peft_is_told(make_whisper, tmp_path):
    config = LoraConfig(
        r=4, lora_alpha=8, target_modules=".*(q_proj|fc2)", use_rslora=True
    )
    model = get_peft_model(make_whisper(), config)
    model.save_pretrained(tmp_path)
    facts = describe(tmp_path)
    assert (facts["r"], facts["lora_alpha"], facts["use_rslora"]) == (4, 8, True)
    assert facts["backbone_sha256"] is None
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert facts["parameters"] == trained


def test_a_whisper_folder_has_its_model_s_numbers(whisper_folder, make_whisper, config):
    facts = describe(whisper_folder)
    assert facts["kind"] == "Hugging Face Whisper" and facts["tokenizer"]
    assert facts["parameters"] == make_whisper().num_parameters()
    for name in ("d_model", "encoder_layers", "num_mel_bins", "vocab_size"):
        assert facts[name] == getattr(config, name)


def test_shards_count_once(make_whisper, tmp_path):
    make_whisper().save_pretrained(tmp_path, max_shard_size="20KB")
    assert len([*tmp_path.glob("model-*.safetensors")]) > 1
    assert describe(tmp_path)["parameters"] == make_whisper().num_parameters()


def test_a_fully_trained_system_tells_the_whisper_inside(backbone, exp):
    save_system(exp / "full", backbone, System(LANGS))
    assert describe(exp / "full")["type"] == "full"
    assert describe(exp / "full/backbone")["kind"] == "Hugging Face Whisper"


def test_a_ggml_file_is_told(tmp_path, write_ggml, small_state, small_config):
    path = tmp_path / "ggml-mine.bin"
    path.write_bytes(write_ggml(small_state, small_config))
    facts = describe(path)
    assert (facts["kind"], facts["d_model"]) == ("whisper.cpp Whisper", 8)
    assert facts["bytes"] == path.stat().st_size


def test_espnet_s_training_and_its_checkpoint(trio, tmp_path):
    trio.bank.train_only(["es", "ru"])
    state = trained_state(trio.hf, trio.sha256)
    torch.save(state, tmp_path / "3epoch.pth")
    os.symlink("3epoch.pth", tmp_path / "latest.pth")
    config = "model: lora_expert\nmodel_conf:\n  r: 3\nbackbone: tiny\nmax_epoch: 3\n"
    (tmp_path / "config.yaml").write_text(config + "token_list:\n- a\n")
    facts = describe(tmp_path)
    assert (facts["kind"], facts["model"]) == ("ESPnet training", "lora_expert")
    assert (facts["r"], facts["backbone"]) == (3, "tiny")
    assert [row["name"] for row in facts["checkpoints"]] == ["3epoch.pth"]
    facts = describe(tmp_path / "3epoch.pth")
    assert facts["experts"] == ["es", "ru"]
    assert facts["backbone_sha256"] == trio.sha256
    assert facts["parameters"] == size(trio.bank, "es") + size(trio.bank, "ru")


def test_what_training_resumes_from_is_no_checkpoint_of_tensors(tmp_path):
    (tmp_path / "checkpoint.pth").write_bytes(b"no torch")
    with pytest.raises(ValueError, match="pth must hold tensors and nothing else"):
        describe(tmp_path / "checkpoint.pth")


def test_a_packed_model_names_its_files(tmp_path):
    with zipfile.ZipFile(tmp_path / "asr.zip", "w") as archive:
        archive.writestr("meta.yaml", "files: {asr_model_file: exp/kd/3epoch.pth}\n")
        archive.writestr("exp/kd/3epoch.pth", bytes(100))
    facts = describe(tmp_path / "asr.zip")
    assert facts["kind"] == "ESPnet packed model" and facts["bytes"] > 100
    assert facts["files"] == {"asr_model_file": "exp/kd/3epoch.pth"}


@pytest.mark.parametrize("name", ["", "notes.txt", "clip.zip"])
def test_what_is_no_model_hears_what_would_be_one(tmp_path, name):
    path = tmp_path / name
    if name:
        path.write_text("text")
    with pytest.raises(ValueError, match="must be a model, but is none: .*system.json"):
        describe(path)


def test_another_model_is_no_whisper(tmp_path, whisper_folder):
    shutil.copytree(whisper_folder, tmp_path / "bert")
    (tmp_path / "bert/config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="must be a Whisper, but its model_type is"):
        describe(tmp_path / "bert")


def test_a_broken_description_is_named(tmp_path):
    write_description(tmp_path, {"type": "single"})
    with pytest.raises(
        ValueError, match="system.json must say its languages, backbone"
    ):
        describe(tmp_path)
