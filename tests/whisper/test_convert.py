"""The cursor never leaves its file, and the check names what does not fit."""

import struct

import numpy as np
import pytest
import torch
from transformers import WhisperConfig

from espnet_lora_experts.whisper.convert import (
    MAX_RANK,
    Cursor,
    check_state_dict,
    config_of,
)


def test_cursor_reads_what_was_written(tmp_path):
    array = np.arange(6, dtype="<f2")
    data = struct.pack("<2IH", 1, 2, 3) + array.tobytes() + b"end"
    (tmp_path / "a.bin").write_bytes(data)
    for source in data, tmp_path / "a.bin", str(tmp_path / "a.bin"):
        cursor = Cursor(source)
        assert cursor.numbers("2IH", "head") == (1, 2, 3)
        tensor = cursor.tensor((2, 3), "<f2", "array")
        assert torch.equal(tensor, torch.arange(6.0).reshape(2, 3))
        assert not cursor.done
        assert bytes(cursor.take(3, "end")) == b"end"
        assert cursor.done


def test_cursor_stops_at_the_end():
    cursor = Cursor(b"abcd")
    cursor.take(3, "start")
    with pytest.raises(ValueError, match="rest must lie inside .* 2 bytes .* byte 3"):
        cursor.take(2, "rest")
    assert bytes(cursor.take(1, "last")) == b"d"


@pytest.mark.parametrize("shape", [(), (0,), (2, 0), (1,) * (MAX_RANK + 1)])
def test_impossible_shapes_are_errors(shape):
    with pytest.raises(ValueError, match="shape of odd must be 1 to 4 positive sizes"):
        Cursor(bytes(64)).tensor(shape, "<f4", "odd")


def test_whole_model_passes_the_check(small_state, small_config):
    check_state_dict(small_state, small_config)


def test_check_names_the_offenders(small_state, small_config):
    short = dict(small_state)
    tensor = short.pop("model.encoder.conv1.bias")
    with pytest.raises(ValueError, match="conv1.bias missing instead of"):
        check_state_dict(short, small_config)
    with pytest.raises(ValueError, match=r"extra \(8,\) instead of none"):
        check_state_dict({**small_state, "extra": tensor}, small_config)
    wider = WhisperConfig.from_dict({**small_config.to_dict(), "encoder_ffn_dim": 32})
    with pytest.raises(ValueError, match="weights must fit .* 6 tensors"):
        check_state_dict(small_state, wider)


def test_sizes_are_those_of_the_tensors(small_state, small_config):
    config = config_of(small_state, 2)
    check_state_dict(small_state, config)
    own, known = config.to_dict(), small_config.to_dict()
    assert {k: own[k] for k in own if "heads" in k} == {
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
    }
    sizes = [k for k in known if k.endswith(("size", "layers", "dim", "positions"))]
    assert len(sizes) >= 7
    assert {k: own[k] for k in sizes} == {k: known[k] for k in sizes}
    assert (config.d_model, config.num_mel_bins) == (8, 4)


@pytest.mark.parametrize(
    "name", ["decoder.embed_tokens", "encoder.conv1", "decoder.layers.0.fc1"]
)
@pytest.mark.parametrize("instead", [{}, {"weight": torch.ones(1)}])
def test_tensor_without_which_there_are_no_sizes_is_named(small_state, name, instead):
    state = dict(small_state)
    del state[f"model.{name}.weight"]
    state |= {f"model.{name}.{leaf}": tensor for leaf, tensor in instead.items()}
    with pytest.raises(ValueError, match=f"weights must have a {name} of rank"):
        config_of(state, 2)


@pytest.mark.parametrize("heads", [0, 3])
def test_impossible_heads_are_an_error(small_state, heads):
    with pytest.raises(ValueError, match=f"must divide the width 8, but got {heads}"):
        config_of(small_state, heads)
