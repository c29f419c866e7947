"""whisper.cpp's file comes back through our own reader as it went."""

import io
import shutil
import struct

import numpy as np
import pytest
import torch
from transformers import WhisperFeatureExtractor

from espnet_lora_experts.whisper.backbone import Backbone
from espnet_lora_experts.whisper.convert_ggml import ggml_to_state_dict, hf_name
from espnet_lora_experts.whisper.export import ggml
from espnet_lora_experts.whisper.export.folded import fold
from espnet_lora_experts.whisper.folder import load_system
from espnet_lora_experts.whisper.systems import System

HEADER = 12 * 4
both = pytest.mark.parametrize("dtype", [torch.float32, torch.float16])


@pytest.fixture
def folded(saved):
    return fold(*load_system(saved / "multi")[:2])


@both
def test_tensors_are_bit_exact_or_rounded(folded, tmp_path, dtype):
    ggml.write(tmp_path / "model.bin", folded, dtype)
    sizes, read = ggml_to_state_dict(tmp_path / "model.bin")
    assert sizes.pop("ftype") == (dtype == torch.float16)
    assert sizes.pop("decoder_d_model") == folded.config.d_model
    assert sizes == {name: getattr(folded.config, name) for name in sizes}
    assert read.keys() == folded.state.keys()
    for name, tensor in read.items():
        kept = tensor.dim() < 2 or "embed_positions" in name
        expected = folded.state[name].to(torch.float32 if kept else dtype).float()
        assert torch.equal(tensor, expected), name


@both
def test_tensors_are_laid_out_as_the_format_says(folded, tmp_path, write_ggml, dtype):
    """Byte for byte as the writer of the tests, which shares no table with ours."""
    ggml.write(tmp_path / "model.bin", folded, dtype)
    data = (tmp_path / "model.bin").read_bytes()
    ftype = int(dtype == torch.float16)
    expected = write_ggml(folded.state, folded.config, ftype)
    assert data[:HEADER] == expected[:HEADER]
    first = struct.pack("<3I", 3, len("encoder.conv1.weight"), ftype)
    assert data[data.index(first) :] == expected[expected.index(first) :]


def test_vocabulary_is_the_text_tokens_bytes(folded, tmp_path):
    ggml.write(tmp_path / "model.bin", folded)
    stream = io.BytesIO((tmp_path / "model.bin").read_bytes()[HEADER:])
    rows, columns = struct.unpack("<2I", stream.read(8))
    filters = np.frombuffer(stream.read(4 * rows * columns), "<f4")
    expected = WhisperFeatureExtractor().mel_filters.T
    np.testing.assert_array_equal(filters.reshape(rows, columns), np.float32(expected))
    (count,) = struct.unpack("<I", stream.read(4))
    tokens = []
    for _ in range(count):
        (length,) = struct.unpack("<I", stream.read(4))
        tokens.append(stream.read(length))
    assert count == folded.prompter.eot
    text = "¿Qué? Да"
    ids = folded.prompter.encode(text, "es")
    assert b"".join(tokens[i] for i in ids).decode() == f" {text}"


def test_names_are_the_reader_s(folded):
    for name in folded.state:
        assert hf_name(ggml.openai_name(name)) == name


def test_imported_again_it_is_the_system(
    saved, folded, tmp_path, mel, logits, folder_30s
):
    ggml.write(tmp_path / "model.bin", folded, torch.float32)
    shutil.copy(folder_30s / "tokenizer.json", tmp_path)
    plain = Backbone.from_pretrained(str(tmp_path / "model.bin"))
    got = logits(plain, System(["es"]), mel)
    expected = logits(*load_system(saved / "multi")[:2], mel)
    torch.testing.assert_close(got, expected)
