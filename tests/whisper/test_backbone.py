"""Our layer-by-layer Whisper is transformers' at 30 s and batch-free at any length."""

import json
import shutil

import pytest
import torch

from espnet_lora_experts.experts.bank import TARGETS
from espnet_lora_experts.experts.gate import everywhere, one_hot
from espnet_lora_experts.experts.layer import FrozenLinear
from espnet_lora_experts.whisper.backbone import Backbone
from espnet_lora_experts.whisper.hub import INDEX, weights_sha256

IDS = torch.tensor([[257, 260, 264, 268, 3, 90], [257, 261, 264, 268, 9, 256]])


def encode(backbone, mel_BTM, frames_B, gate=()):
    x_BPD, valid_BP = backbone.embed(mel_BTM, frames_B)
    for i in range(backbone.encoder_layers):
        x_BPD = backbone.encode_layer(i, x_BPD, valid_BP, gate)
    return backbone.encoder_norm(x_BPD), valid_BP


def decode(backbone, ids_BU, encoded, gate=()):
    y_BUD = backbone.embed_tokens(ids_BU)
    for i in range(backbone.decoder_layers):
        y_BUD = backbone.decode_layer(i, y_BUD, *encoded, gate)
    return backbone.logits(y_BUD)


@torch.no_grad()
def test_encoder_at_30_seconds_is_transformers(make_whisper):
    whisper = make_whisper(max_source_positions=1500)
    mel_BTM = torch.randn(1, 3000, 80)
    expected_BPD = whisper.model.encoder(mel_BTM.transpose(1, 2)).last_hidden_state
    encoded_BPD, valid_BP = encode(Backbone(whisper), mel_BTM, torch.tensor([3000]))
    assert valid_BP.shape == (1, 1500)
    assert valid_BP.all()
    torch.testing.assert_close(encoded_BPD, expected_BPD)


@torch.no_grad()
def test_logits_are_transformers(make_whisper, backbone):
    mel_BTM = torch.randn(2, 200, 80)
    expected_BUK = make_whisper()(
        input_features=mel_BTM.transpose(1, 2), decoder_input_ids=IDS
    ).logits
    encoded = encode(backbone, mel_BTM, torch.tensor([200, 200]))
    torch.testing.assert_close(decode(backbone, IDS, encoded), expected_BUK)


@torch.no_grad()
def test_mels_and_vocabulary_of_large_v3(make_whisper, add_random):
    """128 bins and 51,866 tokens, the last of which are said here."""
    sizes = {"num_mel_bins": 128, "vocab_size": 51_866, "max_source_positions": 1500}
    backbone = Backbone(make_whisper(**sizes))
    lengths_B = torch.tensor([8000, 5000])
    mel_BTM, frames_B = backbone.log_mel(torch.randn(2, 8000), lengths_B, True)
    assert mel_BTM.shape == (2, 3000, 128)
    ids_BU = IDS + 51_866 - 269
    expected_BUK = backbone.hf(
        input_features=mel_BTM.transpose(1, 2), decoder_input_ids=ids_BU
    ).logits
    assert expected_BUK.shape == (2, 6, 51_866)
    add_random(backbone.bank, ["es", "ru"])
    for gate, same in ((), True), (one_hot(["es", "ru"]), False):
        encoded = encode(backbone, mel_BTM, frames_B, gate)
        logits_BUK = decode(backbone, ids_BU, encoded, gate)
        assert torch.allclose(logits_BUK, expected_BUK, atol=1e-4) == same


@torch.no_grad()
def test_batch_is_each_utterance_alone(trio, mel, langs):
    mel_BTM, frames_B = mel
    encoded_BPD, valid_BP = encode(trio, mel_BTM, frames_B, one_hot(langs))
    assert valid_BP.sum(dim=1).tolist() == [20, 32, 11, 26]
    logits = decode(trio, IDS[[0, 1, 0, 1]], (encoded_BPD, valid_BP), one_hot(langs))
    for i, frames in enumerate(frames_B.tolist()):
        gate = one_hot(langs[i : i + 1])
        alone = encode(trio, mel_BTM[i : i + 1, :frames], frames_B[i : i + 1], gate)
        assert alone[1].all()
        own_PD = encoded_BPD[i, valid_BP[i]]
        torch.testing.assert_close(own_PD, alone[0][0])
        alone_logits = decode(trio, IDS[[i % 2]], alone, gate)
        torch.testing.assert_close(logits[i : i + 1], alone_logits)


def test_checkpointing_changes_memory_only(trio, mel, langs):
    trio.bank.train_only(trio.bank.names)
    losses, gradients = [], []
    for checkpointing in False, True:
        trio.checkpointing = checkpointing
        gate = one_hot(langs)
        encoded = encode(trio, *mel, gate)
        loss = decode(trio, IDS[[0, 1, 0, 1]], encoded, gate).square().mean()
        loss.backward()
        losses.append(loss.detach())
        gradients.append([p.grad for p in trio.parameters() if p.requires_grad])
        trio.zero_grad(set_to_none=True)
    assert torch.equal(*losses)
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed)


def test_checkpointing_recomputes_each_layer(trio, mel):
    ran = []
    for layer in trio.hf.model.encoder.layers:
        layer.register_forward_pre_hook(lambda *args: ran.append(trio.bank.switch.gate))
    gate = everywhere("ru")
    trio.bank.train_only(["ru"])
    trio.checkpointing = True
    encode(trio, *mel, gate)[0].sum().backward()
    assert ran == [gate] * 4
    assert trio.bank.switch.gate is None


def test_whisper_stays_frozen_and_in_evaluation_mode(make_whisper):
    whisper = make_whisper(dropout=0.5, encoder_layerdrop=0.5)
    backbone = Backbone(whisper).train()
    assert backbone.training
    assert not any(module.training for module in whisper.modules())
    assert not any(p.requires_grad for p in backbone.parameters())


def test_default_targets_are_all_matrices_of_the_layers(backbone, add_random):
    add_random(backbone.bank, ["es"])
    linear = {
        name.removesuffix(".base_layer")
        for name, module in backbone.hf.named_modules()
        if type(module) is FrozenLinear
    }
    assert set(backbone.bank.layers) == linear - {"proj_out"}
    assert len(linear) == 1 + 2 * 6 + 2 * 10
    assert {name.rsplit(".")[-1] for name in backbone.bank.layers} == set(TARGETS)


def test_folder_becomes_the_backbone(whisper_folder, make_whisper):
    loaded = Backbone.from_pretrained(str(whisper_folder), checkpointing=True)
    assert loaded.sha256 == weights_sha256(make_whisper())
    assert (loaded.name, loaded.checkpointing) == (str(whisper_folder), True)
    assert (loaded.encoder_layers, loaded.decoder_layers) == (2, 2)
    dtypes = {p.dtype for p in loaded.parameters()}
    assert dtypes == {torch.float32}


@pytest.mark.parametrize("shards", [False, True], ids=["one file", "shards"])
def test_truncated_weights_are_named(whisper_folder, tmp_path, make_whisper, shards):
    folder = tmp_path / "whisper"
    shutil.copytree(whisper_folder, folder)
    if shards:
        (folder / "model.safetensors").unlink()
        make_whisper().save_pretrained(folder, max_shard_size="20KB")
    broken = sorted(folder.glob("*.safetensors"))[-1]
    assert broken.name.startswith("model-0000") == shards == (folder / INDEX).exists()
    assert Backbone.from_pretrained(str(folder)).encoder_layers == 2
    broken.write_bytes(broken.read_bytes()[:-1])
    with pytest.raises(ValueError, match=f"{broken} must be a whole safetensors file"):
        Backbone.from_pretrained(str(folder))


def test_broken_index_is_named(whisper_folder, tmp_path):
    folder = tmp_path / "whisper"
    shutil.copytree(whisper_folder, folder)
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    (folder / INDEX).write_text(json.dumps({"weight_map": {}})[:-2])
    with pytest.raises(ValueError, match=f"{INDEX} must be whole JSON"):
        Backbone.from_pretrained(str(folder))
