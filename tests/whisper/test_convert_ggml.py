"""What the ggml reader gives is the model that was written, bit for bit.

The writer in conftest is the format's own, without the reader's tables.
"""

import struct

import numpy as np
import pytest
import torch

from espnet_lora_experts.whisper.convert import check_state_dict
from espnet_lora_experts.whisper.convert_ggml import ggml_to_state_dict


@pytest.fixture
def config(small_config):
    return small_config


@pytest.fixture
def state(small_state):
    return small_state


def assert_equal(actual, expected):
    assert actual.keys() == expected.keys()
    for name, tensor in actual.items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize("ftype", [0, 1])
def test_ggml_is_bit_exact(state, config, ftype, tmp_path, write_ggml):
    path = tmp_path / "model.bin"
    path.write_bytes(write_ggml(state, config, ftype))
    hparams, read = ggml_to_state_dict(path)
    assert_equal(read, state)
    assert hparams.pop("ftype") == ftype
    assert hparams.pop("decoder_d_model") == config.d_model
    assert hparams == {name: getattr(config, name) for name in hparams}
    check_state_dict(read, config)


def test_ggml_f32_keeps_every_bit(state, config, write_ggml):
    state = {k: v + 1e-7 for k, v in state.items()}
    assert_equal(ggml_to_state_dict(write_ggml(state, config))[1], state)


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.1, 0.5, 0.999])
def test_truncated_file_is_an_error(state, config, kept, write_ggml):
    data = write_ggml(state, config)
    with pytest.raises(ValueError, match="must lie inside the file, but got"):
        ggml_to_state_dict(data[: int(kept * len(data))])


def test_claim_of_more_than_the_file_names_the_tensor(state, config, write_ggml):
    tensor = struct.pack("<5I", 2, 4, 0, 2**31, 2**31) + b"huge"
    with pytest.raises(ValueError, match="tensor huge must lie inside the file"):
        ggml_to_state_dict(write_ggml(state, config) + tensor)


def test_quantised_and_foreign_files_are_errors(state, config, write_ggml):
    data = write_ggml(state, config)
    quantised = struct.pack("<4I", 1, 4, 8, 32) + b"q8_0" + bytes(34)
    with pytest.raises(ValueError, match="type of tensor q8_0 must be f32 or f16"):
        ggml_to_state_dict(data + quantised)
    with pytest.raises(ValueError, match="ggml magic must be"):
        ggml_to_state_dict(b"GGUF" + data[4:])


def test_empty_shape_is_an_error(state, config, write_ggml):
    tensor = struct.pack("<5I", 2, 5, 0, 0, 2**31) + b"empty"
    with pytest.raises(ValueError, match="shape of tensor empty must be 1 to 4 posit"):
        ggml_to_state_dict(write_ggml(state, config) + tensor)


def test_random_bytes_never_escape_value_error(state, config, write_ggml):
    rng, data = np.random.default_rng(0), write_ggml(state, config)
    for _ in range(100):
        damaged = bytearray(data)
        for at in rng.integers(0, len(data), 8):
            damaged[at] = rng.integers(0, 256)
        try:
            ggml_to_state_dict(bytes(damaged))
        except ValueError:
            continue
