"""What the CTranslate2 reader gives is the model that was written, bit for bit.

The writer below is the format's own, spelled out without the reader's tables.
"""

import json
import struct

import numpy as np
import pytest
import torch
from transformers import WhisperForConditionalGeneration

from espnet_lora_experts.whisper.convert_ct2 import ct2_to_state_dict, read_ct2
from espnet_lora_experts.whisper.convert_local import CT2_WEIGHTS, convert
from espnet_lora_experts.whisper.hub import weights_sha256
from espnet_lora_experts.whisper.prompt import Prompter


def array(tensor, dtype):
    return tensor.numpy().astype(dtype).tobytes()


def ct2_variables(state, config):
    out = {}
    for side in ("encoder", "decoder"):
        stem = f"model.{side}."
        own = {k[len(stem) :]: v for k, v in state.items() if k.startswith(stem)}
        out |= {f"{side}/{k}": v for k, v in ct2_side(own, config.d_model).items()}
    return out


def ct2_side(own, width):
    out = {"position_encodings/encodings": own["embed_positions.weight"]}
    out |= ct2_norm("layer_norm", own, "layer_norm")
    for name in ("conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias"):
        if name in own:
            out[name.replace(".", "/")] = own[name]
    if "embed_tokens.weight" in own:
        out["embeddings/weight"] = own["embed_tokens.weight"]
    layers = {k.split(".")[1] for k in own if k.startswith("layers.")}
    for i in layers:
        prefix = f"layers.{i}."
        layer = {k[len(prefix) :]: v for k, v in own.items() if k.startswith(prefix)}
        out |= {f"layer_{i}/{k}": v for k, v in ct2_layer(layer, width).items()}
    return out


def ct2_layer(layer, width):
    out = ct2_attention("self_attention", layer, "self_attn", [("q", "k", "v")], width)
    if "encoder_attn.q_proj.weight" in layer:
        groups = [("q",), ("k", "v")]
        out |= ct2_attention("attention", layer, "encoder_attn", groups, width)
    out |= ct2_norm("ffn/layer_norm", layer, "final_layer_norm")
    for target, source in (("ffn/linear_0", "fc1"), ("ffn/linear_1", "fc2")):
        out[f"{target}/weight"] = layer[f"{source}.weight"]
        out[f"{target}/bias"] = layer[f"{source}.bias"]
    return out


def ct2_attention(target, layer, source, groups, width):
    out = ct2_norm(f"{target}/layer_norm", layer, f"{source}_layer_norm")
    for i, group in enumerate([*groups, ("out",)]):
        names = [f"{source}.{letter}_proj" for letter in group]
        biases = [layer.get(f"{name}.bias", torch.zeros(width)) for name in names]
        weights = [layer[f"{name}.weight"] for name in names]
        out[f"{target}/linear_{i}/weight"] = torch.cat(weights)
        out[f"{target}/linear_{i}/bias"] = torch.cat(biases)
    return out


def ct2_norm(target, layer, source):
    return {
        f"{target}/gamma": layer[f"{source}.weight"],
        f"{target}/beta": layer[f"{source}.bias"],
    }


def ct2_name(name):
    return struct.pack("<H", len(name) + 1) + name.encode() + b"\0"


def ct2_variable(name, tensor, dtype):
    code, numpy_dtype = {"f4": (0, "<f4"), "f2": (4, "<f2")}[dtype]
    data = array(tensor, numpy_dtype)
    shape = tensor.shape
    head = struct.pack(f"<B{len(shape)}IBI", len(shape), *shape, code, len(data))
    return ct2_name(name) + head + data


def write_ct2(state, config, dtype="f4", version=6, aliases=()):
    variables = ct2_variables(state, config)
    for alias, _ in aliases:
        variables.pop(alias, None)
    option = ct2_name("encoder/num_heads") + struct.pack("<BBIh", 0, 2, 2, 2)
    aliases = [("decoder/projection/weight", "decoder/embeddings/weight"), *aliases]
    return b"".join(
        [
            struct.pack("<I", version) + ct2_name("WhisperSpec"),
            struct.pack("<II", 3, len(variables) + 1) + option,
            *(ct2_variable(k, v, dtype) for k, v in variables.items()),
            struct.pack("<I", len(aliases)),
            *(ct2_name(alias) + ct2_name(target) for alias, target in aliases),
        ]
    )


def assert_equal(actual, expected):
    assert actual.keys() == expected.keys()
    for name, tensor in actual.items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize("version", [4, 5, 6])
@pytest.mark.parametrize("dtype", ["f4", "f2"])
def test_ct2_is_bit_exact(small_state, small_config, dtype, version):
    data = write_ct2(small_state, small_config, dtype, version)
    assert_equal(ct2_to_state_dict(data, small_config), small_state)


def test_options_are_numbers(small_state, small_config):
    options, read = read_ct2(write_ct2(small_state, small_config))
    assert options == {"encoder/num_heads": 2}
    assert_equal(read, small_state)


def test_folder_becomes_a_whisper(make_whisper, whisper_folder, tmp_path):
    """A folder like faster-whisper's: all that a Whisper needs is found in it."""
    whisper, source, out = make_whisper(), tmp_path / "ct2", tmp_path / "out"
    source.mkdir(), out.mkdir()
    state = {k: v for k, v in whisper.state_dict().items() if k != "proj_out.weight"}
    (source / CT2_WEIGHTS).write_bytes(write_ct2(state, whisper.config))
    suppressed = {"suppress_ids": [3, 5], "suppress_ids_begin": [7], "lang_ids": [258]}
    (source / "config.json").write_text(json.dumps(suppressed))
    tokenizer = (whisper_folder / "tokenizer.json").read_bytes()
    (source / "tokenizer.json").write_bytes(tokenizer)
    convert(source, out, relative=None)
    loaded = WhisperForConditionalGeneration.from_pretrained(out)
    assert weights_sha256(loaded) == weights_sha256(whisper)
    assert loaded.config.encoder_attention_heads == 2
    assert loaded.generation_config.suppress_tokens == [3, 5]
    assert loaded.generation_config.begin_suppress_tokens == [7]
    assert Prompter(out).vocab == Prompter(whisper_folder).vocab


def test_ct2_alias_is_its_target(small_state, small_config, tmp_path):
    alias = ("encoder/layer_0/ffn/linear_0", "encoder/layer_1/ffn/linear_0")
    same = dict(small_state)
    same["model.encoder.layers.0.fc1.weight"] = same[
        "model.encoder.layers.1.fc1.weight"
    ]
    aliases = [tuple(f"{name}/weight" for name in alias)]
    path = tmp_path / "model.bin"
    path.write_bytes(write_ct2(same, small_config, aliases=aliases))
    assert_equal(ct2_to_state_dict(path, small_config), same)


def test_fused_tensors_do_not_share_memory(small_state, small_config):
    read = ct2_to_state_dict(write_ct2(small_state, small_config), small_config)
    pointers = {tensor.untyped_storage().data_ptr() for tensor in read.values()}
    assert len(pointers) == len(read)


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.1, 0.5, 0.999])
def test_truncated_file_is_an_error(small_state, small_config, kept):
    data = write_ct2(small_state, small_config)
    with pytest.raises(ValueError, match="must lie inside the file, but got"):
        ct2_to_state_dict(data[: int(kept * len(data))], small_config)


def test_claim_of_more_than_the_file_names_the_tensor(small_config):
    shape = struct.pack("<B2IBI", 2, 2**14, 2**15, 0, 2**31)
    head = struct.pack("<I", 6) + ct2_name("WhisperSpec") + struct.pack("<II", 3, 1)
    with pytest.raises(ValueError, match="tensor decoder/huge must lie inside"):
        ct2_to_state_dict(head + ct2_name("decoder/huge") + shape, small_config)


def test_foreign_files_are_errors(small_state, small_config):
    data = write_ct2(small_state, small_config)
    with pytest.raises(ValueError, match="CTranslate2 version must be known"):
        ct2_to_state_dict(struct.pack("<I", 3) + data[4:], small_config)
    with pytest.raises(ValueError, match="specification must be known, but got 'Bert"):
        ct2_to_state_dict(data.replace(b"WhisperSpec", b"BertSpec___"), small_config)
    with pytest.raises(ValueError, match="variable must be a Whisper's, but got"):
        ct2_to_state_dict(
            data.replace(b"encoder/conv1", b"encoder/conv9"), small_config
        )


def test_quantised_file_is_an_error(small_config):
    head = struct.pack("<I", 6) + ct2_name("WhisperSpec") + struct.pack("<II", 3, 1)
    variable = ct2_name("decoder/q8") + struct.pack("<BIBI", 1, 4, 1, 4) + bytes(4)
    with pytest.raises(ValueError, match="type of decoder/q8 must be f32 or f16"):
        ct2_to_state_dict(head + variable, small_config)


def test_size_that_contradicts_the_shape_is_an_error(small_config):
    head = struct.pack("<I", 6) + ct2_name("WhisperSpec") + struct.pack("<II", 3, 1)
    variable = ct2_name("decoder/odd") + struct.pack("<BIBI", 1, 4, 0, 12) + bytes(12)
    with pytest.raises(ValueError, match="size of decoder/odd must be 16 bytes"):
        ct2_to_state_dict(head + variable, small_config)


def test_random_bytes_never_escape_value_error(small_state, small_config):
    rng, data = np.random.default_rng(0), write_ct2(small_state, small_config)
    for _ in range(100):
        damaged = bytearray(data)
        for at in rng.integers(0, len(data), 8):
            damaged[at] = rng.integers(0, 256)
        try:
            ct2_to_state_dict(bytes(damaged), small_config)
        except ValueError:
            continue
