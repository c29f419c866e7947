"""Sizes read from headers are those of the weights behind them."""

import struct

import numpy as np
import pytest
from safetensors.numpy import save_file

from espnet_lora_experts.whisper import headers


def test_safetensors_gives_shapes_types_and_metadata(tmp_path):
    tensors = {"a": np.zeros((2, 3), np.float32), "b": np.zeros(5, np.float16)}
    save_file(tensors, tmp_path / "x.safetensors", metadata={"expert": "es"})
    shapes, metadata = headers.read_safetensors(tmp_path / "x.safetensors")
    assert shapes == {"a": ((2, 3), "float32"), "b": ((5,), "float16")}
    assert metadata == {"expert": "es"}
    assert headers.count(shapes) == 11 and headers.types(shapes) == "float16 float32"


@pytest.mark.parametrize("content", [None, b"", b"no safetensors", "truncated"])
def test_broken_safetensors_are_named(tmp_path, content):
    path = tmp_path / "x.safetensors"
    if content == "truncated":
        save_file({"a": np.zeros(100, np.float32)}, path)
        content = path.read_bytes()[:-10]
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match="x.safetensors must be a whole safetensors"):
        headers.read_safetensors(path)


def test_ggml_gives_the_config_s_sizes(tmp_path, write_ggml, small_state, small_config):
    path = tmp_path / "ggml.bin"
    for ftype, kind in ((0, "float32"), (1, "float16")):
        path.write_bytes(write_ggml(small_state, small_config, ftype))
        sizes = headers.read_ggml(path)
        assert sizes["type"] == kind
        for name in ("d_model", "encoder_layers", "decoder_layers", "num_mel_bins"):
            assert sizes[name] == getattr(small_config, name)
    path.write_bytes(write_ggml({}, small_config, 8))
    assert headers.read_ggml(path)["type"] == "quantised (8)"


@pytest.mark.parametrize("content", [b"", b"ggml", bytes(200)])
def test_what_is_no_ggml_is_named(tmp_path, content):
    (tmp_path / "x.bin").write_bytes(content)
    with pytest.raises(ValueError, match="x.bin must be a whisper.cpp file"):
        headers.read_ggml(tmp_path / "x.bin")


VARIABLES = {
    "encoder/num_heads": ((), 2, b"\2\0"),
    "encoder/conv1/weight": ((8, 4, 3), 0, bytes(4 * 96)),
    "encoder/layer_norm/gamma": ((8,), 0, bytes(32)),
    "encoder/layer_0/ffn/linear_0/weight": ((16, 8), 1, bytes(128)),
    "encoder/layer_1/ffn/linear_0/weight": ((16, 8), 1, bytes(128)),
    "decoder/embeddings/weight": ((40, 8), 4, bytes(2 * 320)),
    "decoder/layer_0/ffn/linear_0/weight": ((16, 8), 1, bytes(128)),
    "decoder/alignment_heads": ((3, 2), 2, bytes(12)),
}


def ct2_bytes(spec="WhisperSpec"):
    """CTranslate2's file, spelled out as the format says."""

    def name(text):
        return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"

    data = struct.pack("<I", 6) + name(spec) + struct.pack("<II", 3, len(VARIABLES))
    for key, (shape, kind, content) in VARIABLES.items():
        head = struct.pack(f"<B{len(shape)}I", len(shape), *shape)
        data += name(key) + head + struct.pack("<BI", kind, len(content)) + content
    return data + struct.pack("<I", 0)


def test_ct2_gives_sizes_of_any_type(tmp_path):
    (tmp_path / "model.bin").write_bytes(ct2_bytes())
    shapes = headers.read_ct2(tmp_path / "model.bin")
    assert headers.types(shapes) == "float16 float32 int8"
    assert headers.count(shapes) == 96 + 8 + 3 * 128 + 320
    assert headers.ct2_sizes(shapes) == {
        "encoder_layers": 2,
        "decoder_layers": 1,
        "d_model": 8,
        "num_mel_bins": 4,
        "vocab_size": 40,
    }


@pytest.mark.parametrize(
    "content", [b"", ct2_bytes()[:60], ct2_bytes()[:-30], ct2_bytes("OtherSpec")]
)
def test_what_is_no_ct2_whisper_is_named(tmp_path, content):
    (tmp_path / "model.bin").write_bytes(content)
    with pytest.raises(ValueError, match="model.bin must be a whole Whisper of CTran"):
        headers.read_ct2(tmp_path / "model.bin")


def test_a_ct2_file_of_other_variables_is_named():
    with pytest.raises(ValueError, match="must be a Whisper's, but lack 'decoder/emb"):
        headers.ct2_sizes({})


@pytest.mark.parametrize(
    "sizes, name",
    [
        ({"d_model": 384}, "tiny"),
        ({"d_model": 1280, "decoder_layers": 32, "num_mel_bins": 80}, "large"),
        ({"d_model": 1280, "decoder_layers": 32, "num_mel_bins": 128}, "large-v3"),
        ({"d_model": 16}, None),
        ({"d_model": None}, None),
    ],
)
def test_sizes_have_whisper_s_names(sizes, name):
    assert headers.size_of(sizes) == name
