"""transformers and our own loader read what was written."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from espnet_lora_experts.whisper.backbone import Backbone
from espnet_lora_experts.whisper.export import huggingface
from espnet_lora_experts.whisper.export.folded import fold
from espnet_lora_experts.whisper.folder import load_system
from espnet_lora_experts.whisper.systems import System


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "hf").mkdir()
    return tmp_path / "hf"


def test_written_is_the_system(one, folder, mel, logits):
    backbone, system, lang = one
    huggingface.write(folder, fold(backbone, system, lang))
    plain = Backbone.from_pretrained(str(folder))
    got = logits(plain, System(["es"]), mel)
    torch.testing.assert_close(got, logits(backbone, system, mel, lang))


def test_tensors_are_bit_exact_and_rounded_in_float16(saved, tmp_path):
    folded = fold(*load_system(saved / "multi")[:2])
    for dtype in (torch.float32, torch.float16):
        out = tmp_path / str(dtype)
        out.mkdir()
        huggingface.write(out, folded, dtype)
        read = load_file(out / "model.safetensors")
        assert read.keys() == folded.state.keys()
        for name, tensor in read.items():
            assert tensor.dtype == dtype
            assert torch.equal(tensor, folded.state[name].to(dtype)), name
        model = WhisperForConditionalGeneration.from_pretrained(out)
        assert model.dtype == dtype


def test_transformers_has_a_processor_and_no_forced_language(saved, folder):
    huggingface.write(folder, fold(*load_system(saved / "multi")[:2]))
    processor = WhisperProcessor.from_pretrained(folder)
    assert processor.feature_extractor.feature_size == 80
    model = WhisperForConditionalGeneration.from_pretrained(folder)
    assert getattr(model.generation_config, "forced_decoder_ids", None) is None
    assert model.generation_config.task == "transcribe"
    assert set(model.generation_config.lang_to_id) == {"<|es|>", "<|ru|>", "<|ja|>"}


def test_a_backbone_without_them_gets_feature_extractor_and_tokenizer(saved, folder):
    folded = fold(*load_system(saved / "multi")[:2])
    bare = folder.parent / "bare"
    bare.mkdir()
    object.__setattr__(folded, "source", bare)
    huggingface.write(folder, folded)
    processor = WhisperProcessor.from_pretrained(folder)
    assert processor.tokenizer.get_vocab() == folded.prompter.vocab
    assert processor.feature_extractor.feature_size == folded.config.num_mel_bins
