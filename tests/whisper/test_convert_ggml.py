"""What the ggml reader gives is the model that was written, bit for bit.

The writer below is the format's own, spelled out without the reader's tables.
"""

import re
import struct

import numpy as np
import pytest
import torch

from espnet_lora_experts.whisper.convert import check_state_dict
from espnet_lora_experts.whisper.convert_ggml import ggml_to_state_dict

GGML_NAMES = (
    (r"^model\.", ""),
    (r"layers\.(\d+)", r"blocks.\1"),
    (r"self_attn_layer_norm", "attn_ln"),
    (r"encoder_attn_layer_norm", "cross_attn_ln"),
    (r"final_layer_norm", "mlp_ln"),
    (r"self_attn", "attn"),
    (r"encoder_attn", "cross_attn"),
    (r"q_proj", "query"),
    (r"k_proj", "key"),
    (r"v_proj", "value"),
    (r"out_proj", "out"),
    (r"fc1", "mlp.0"),
    (r"fc2", "mlp.2"),
    (r"encoder\.layer_norm", "encoder.ln_post"),
    (r"decoder\.layer_norm", "decoder.ln"),
    (r"embed_tokens", "token_embedding"),
    (r"embed_positions\.weight", "positional_embedding"),
)


@pytest.fixture
def config(small_config):
    return small_config


@pytest.fixture
def state(small_state):
    return small_state


def array(tensor, dtype):
    return tensor.numpy().astype(dtype).tobytes()


def write_ggml(state, config, ftype=0):
    sizes = (config.vocab_size, config.max_source_positions, config.d_model)
    sizes += (config.encoder_attention_heads, config.encoder_layers)
    sizes += (config.max_target_positions, config.d_model)
    sizes += (config.decoder_attention_heads, config.decoder_layers)
    head = struct.pack("<12i", 0x67676D6C, *sizes, config.num_mel_bins, ftype)
    mel = struct.pack("<2i", 4, 3) + bytes(4 * 4 * 3)
    vocabulary = struct.pack("<i", 2) + struct.pack("<i2si", 2, b"ab", 0)
    tensors = b"".join(ggml_tensor(k, v, ftype) for k, v in state.items())
    return head + mel + vocabulary + tensors


def ggml_tensor(name, tensor, ftype):
    for pattern, replacement in GGML_NAMES:
        name = re.sub(pattern, replacement, name)
    shape = (tensor.shape[0], 1) if re.search("conv..bias", name) else tensor.shape
    ftype = ftype if tensor.dim() > 1 and "positional" not in name else 0
    head = struct.pack(f"<3i{len(shape)}i", len(shape), len(name), ftype, *shape[::-1])
    return head + name.encode() + array(tensor, "<f2" if ftype else "<f4")


def assert_equal(actual, expected):
    assert actual.keys() == expected.keys()
    for name, tensor in actual.items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize("ftype", [0, 1])
def test_ggml_is_bit_exact(state, config, ftype, tmp_path):
    path = tmp_path / "model.bin"
    path.write_bytes(write_ggml(state, config, ftype))
    hparams, read = ggml_to_state_dict(path)
    assert_equal(read, state)
    assert hparams.pop("ftype") == ftype
    assert hparams.pop("decoder_d_model") == config.d_model
    assert hparams == {name: getattr(config, name) for name in hparams}
    check_state_dict(read, config)


def test_ggml_f32_keeps_every_bit(state, config):
    state = {k: v + 1e-7 for k, v in state.items()}
    assert_equal(ggml_to_state_dict(write_ggml(state, config))[1], state)


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.1, 0.5, 0.999])
def test_truncated_file_is_an_error(state, config, kept):
    data = write_ggml(state, config)
    with pytest.raises(ValueError, match="must lie inside the file, but got"):
        ggml_to_state_dict(data[: int(kept * len(data))])


def test_claim_of_more_than_the_file_names_the_tensor(state, config):
    tensor = struct.pack("<5I", 2, 4, 0, 2**31, 2**31) + b"huge"
    with pytest.raises(ValueError, match="tensor huge must lie inside the file"):
        ggml_to_state_dict(write_ggml(state, config) + tensor)


def test_quantised_and_foreign_files_are_errors(state, config):
    data = write_ggml(state, config)
    quantised = struct.pack("<4I", 1, 4, 8, 32) + b"q8_0" + bytes(34)
    with pytest.raises(ValueError, match="type of tensor q8_0 must be f32 or f16"):
        ggml_to_state_dict(data + quantised)
    with pytest.raises(ValueError, match="ggml magic must be"):
        ggml_to_state_dict(b"GGUF" + data[4:])


def test_empty_shape_is_an_error(state, config):
    tensor = struct.pack("<5I", 2, 5, 0, 0, 2**31) + b"empty"
    with pytest.raises(ValueError, match="shape of tensor empty must be 1 to 4 posit"):
        ggml_to_state_dict(write_ggml(state, config) + tensor)


def test_random_bytes_never_escape_value_error(state, config):
    rng, data = np.random.default_rng(0), write_ggml(state, config)
    for _ in range(100):
        damaged = bytearray(data)
        for at in rng.integers(0, len(data), 8):
            damaged[at] = rng.integers(0, 256)
        try:
            ggml_to_state_dict(bytes(damaged))
        except ValueError:
            continue
