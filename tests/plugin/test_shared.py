"""Frontend, encoder and decoder are views on one Whisper in memory."""

import gc

import pytest
import torch
from transformers import WhisperForConditionalGeneration

from espnet_lora_experts.plugin import shared
from espnet_lora_experts.plugin.task import LoraExpertsTask

KINDS = ["experts", "multi", "mole", "distill", "full"]


def whispers():
    gc.collect()
    kind = WhisperForConditionalGeneration
    return {id(x) for x in gc.get_objects() if type(x) is kind}


@pytest.mark.parametrize("kind", KINDS)
def test_one_whisper_in_memory(build, collate, make_whisper, kind):
    """Of a model in training, teacher and student included, and every byte of it."""
    base = sum(p.numel() for p in make_whisper(max_source_positions=1500).parameters())
    before = whispers()
    model = build(kind)
    model(**collate("a1", "a2"))[0].backward()
    assert len(whispers() - before) == 1
    lora = sum(p.numel() for n, p in model.named_parameters() if ".lora_" in n)
    rest = model.trained_params if kind == "mole" else 0
    storage = {t.data_ptr(): t.numel() for t in model.parameters() if t.numel()}
    assert sum(storage.values()) == base + lora + rest
    assert shared._waiting == {}


def test_models_of_one_backbone_do_not_share_it(build):
    a, b = build("experts"), build("experts")
    assert a.backbone is not b.backbone
    assert a.decoder.backbone is a.encoder.backbone is a.backbone


def test_checkpointing_changes_no_gradient(build, collate, gradients):
    more = {"frontend_conf": {"checkpointing": True}}
    plain, saving = build("experts"), build("experts", more=more)
    assert saving.backbone.checkpointing and not plain.backbone.checkpointing
    batch = collate("a1", "a2")
    a, b = (gradients(model, model(**batch)[0]) for model in (plain, saving))
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("kind", ["multi", "full"])
def test_espnets_contract_gives_the_models_own_scores(build, collate, kind):
    """``encode`` and the decoder, as ESPnet's decoding calls them, batched."""
    model, given = build(kind).eval(), collate("a2", "a4", "a6")
    hidden, lengths = model.encode(given["speech"], given["speech_lengths"])
    ids = given["text"].clamp(min=0)
    scores, _ = model.decoder(hidden, lengths, ids, given["text_lengths"])
    log_p = scores.log_softmax(-1)
    for row, n in enumerate(given["text_lengths"]):
        targets = [*ids[row, 1:n].tolist(), model.eos]
        counted = [0, *range(3, n)]
        loss = -sum(log_p[row, u, targets[u]] for u in counted) / len(counted)
        alone = model(**collate(["a2", "a4", "a6"][row]))[0][0]
        torch.testing.assert_close(loss, alone, atol=1e-5, rtol=1e-5)


def test_vocabulary_must_be_the_backbones(arguments, tmp_path):
    short = tmp_path / "token_list"
    short.write_text("a\nb\n")
    args = arguments(token_list=str(short), model_conf={"languages": ["es"]})
    with pytest.raises(ValueError, match="must hold the .* tokens of .*got 2.*stage 3"):
        LoraExpertsTask.build_model(args)
