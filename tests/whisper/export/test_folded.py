"""A folded system computes what it computed under its gates."""

import pytest
import torch
from transformers import WhisperForConditionalGeneration

from espnet_lora_experts.whisper import hub
from espnet_lora_experts.whisper.backbone import Backbone
from espnet_lora_experts.whisper.convert import TIED
from espnet_lora_experts.whisper.export.folded import fold
from espnet_lora_experts.whisper.folder import load_system
from espnet_lora_experts.whisper.systems import System


def whisper(folded):
    """A new model of transformers with the folded tensors."""
    model = WhisperForConditionalGeneration(folded.config).eval()
    tied = folded.state["model.decoder.embed_tokens.weight"]
    model.load_state_dict(folded.state | {TIED: tied})
    return model


def test_folded_is_the_system(one, mel, logits):
    backbone, system, lang = one
    plain = Backbone(whisper(fold(backbone, system, lang)))
    got = logits(plain, System(["es"]), mel)
    torch.testing.assert_close(got, logits(backbone, system, mel, lang))


def test_folding_changes_something_and_leaves_the_backbone(saved, mel, logits):
    backbone, system, _ = load_system(saved / "mono")
    before = logits(backbone, system, mel, "es")
    es, ru = (Backbone(whisper(fold(backbone, system, x))) for x in ("es", "ru"))
    vanilla = hub.weights_sha256(whisper(fold(backbone, System(["es"]))))
    assert len({es.sha256, ru.sha256, vanilla, backbone.sha256}) == 3
    assert vanilla == backbone.sha256
    assert torch.equal(logits(backbone, system, mel, "es"), before)


def test_experts_must_be_told_the_language(saved):
    backbone, system, _ = load_system(saved / "mono")
    with pytest.raises(ValueError, match="must be told the language .* give lang"):
        fold(backbone, system)


def test_only_its_languages_can_be_found(saved):
    backbone, system, _ = load_system(saved / "multi")
    system.languages = ["ru", "yue", "es"]
    folded = fold(backbone, system)
    vocab = folded.prompter.vocab
    tokens = ["<|es|>", "<|ru|>", "<|zh|>"]  # Cantonese borrows Chinese's
    assert folded.generation.lang_to_id == {token: vocab[token] for token in tokens}
    assert folded.generation.language is None
    assert fold(backbone, system, "yue").generation.language == "<|zh|>"


def test_special_tokens_are_suppressed_but_the_end_and_timestamps(saved):
    backbone, system, _ = load_system(saved / "multi")
    folded = fold(backbone, system)
    eot, vocab = folded.prompter.eot, folded.prompter.vocab
    banned = folded.generation.suppress_tokens
    assert banned == [*range(eot + 1, vocab["<|notimestamps|>"])]
    # transformers knows the token of previous text by this place
    assert banned[-2] == vocab["<|startofprev|>"]
    assert folded.generation.begin_suppress_tokens == []


def test_a_whisper_as_it_came_keeps_its_own_list(saved):
    backbone, _, _ = load_system(saved / "multi")
    backbone.hf.generation_config.suppress_tokens = [3, 5]
    folded = fold(backbone, System(["es"]), suppress_tokens=True)
    assert folded.generation.suppress_tokens == [3, 5]
    tuned = fold(backbone, System(["es"]))
    assert 3 not in tuned.generation.suppress_tokens
    assert backbone.hf.generation_config.suppress_tokens == [3, 5]
