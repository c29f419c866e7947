"""What the ggml and CTranslate2 readers give is the model that was written, bit for bit.

The writers below are the formats' own, spelled out without the readers' tables.
"""

import re
import struct

import numpy as np
import pytest
import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration

from espnet_lora_experts.whisper.convert import TIED, check_state_dict
from espnet_lora_experts.whisper.convert_ct2 import ct2_to_state_dict
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


@pytest.fixture(scope="module")
def config():
    return WhisperConfig(
        vocab_size=40,
        d_model=8,
        encoder_layers=2,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        num_mel_bins=4,
        max_source_positions=12,
        max_target_positions=10,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=1,
        decoder_start_token_id=2,
    )


@pytest.fixture(scope="module")
def state(config):
    """A random model's tensors, each value exact in float16."""
    torch.manual_seed(0)
    model = WhisperForConditionalGeneration(config)
    state = {k: v for k, v in model.state_dict().items() if k != TIED}
    return {k: torch.randn_like(v).half().float() for k, v in state.items()}


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


@pytest.mark.parametrize("version", [4, 5, 6])
@pytest.mark.parametrize("dtype", ["f4", "f2"])
def test_ct2_is_bit_exact(state, config, dtype, version):
    data = write_ct2(state, config, dtype, version)
    assert_equal(ct2_to_state_dict(data, config), state)


def test_ct2_alias_is_its_target(state, config, tmp_path):
    alias = ("encoder/layer_0/ffn/linear_0", "encoder/layer_1/ffn/linear_0")
    same = dict(state)
    same["model.encoder.layers.0.fc1.weight"] = same[
        "model.encoder.layers.1.fc1.weight"
    ]
    aliases = [tuple(f"{name}/weight" for name in alias)]
    path = tmp_path / "model.bin"
    path.write_bytes(write_ct2(same, config, aliases=aliases))
    assert_equal(ct2_to_state_dict(path, config), same)


def test_fused_tensors_do_not_share_memory(state, config):
    read = ct2_to_state_dict(write_ct2(state, config), config)
    pointers = {tensor.untyped_storage().data_ptr() for tensor in read.values()}
    assert len(pointers) == len(read)


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.1, 0.5, 0.999])
def test_truncated_file_is_an_error(state, config, kept):
    ggml, ct2 = write_ggml(state, config), write_ct2(state, config)
    with pytest.raises(ValueError, match="must lie inside the file, but got"):
        ggml_to_state_dict(ggml[: int(kept * len(ggml))])
    with pytest.raises(ValueError, match="must lie inside the file, but got"):
        ct2_to_state_dict(ct2[: int(kept * len(ct2))], config)


def test_claim_of_more_than_the_file_names_the_tensor(state, config):
    tensor = struct.pack("<5I", 2, 4, 0, 2**31, 2**31) + b"huge"
    with pytest.raises(ValueError, match="tensor huge must lie inside the file"):
        ggml_to_state_dict(write_ggml(state, config) + tensor)
    shape = struct.pack("<B2IBI", 2, 2**14, 2**15, 0, 2**31)
    head = struct.pack("<I", 6) + ct2_name("WhisperSpec") + struct.pack("<II", 3, 1)
    with pytest.raises(ValueError, match="tensor decoder/huge must lie inside"):
        ct2_to_state_dict(head + ct2_name("decoder/huge") + shape, config)


def test_quantised_and_foreign_files_are_errors(state, config):
    ggml, ct2 = write_ggml(state, config), write_ct2(state, config)
    quantised = struct.pack("<4I", 1, 4, 8, 32) + b"q8_0" + bytes(34)
    with pytest.raises(ValueError, match="type of tensor q8_0 must be f32 or f16"):
        ggml_to_state_dict(ggml + quantised)
    with pytest.raises(ValueError, match="ggml magic must be"):
        ggml_to_state_dict(ct2)
    with pytest.raises(ValueError, match="CTranslate2 version must be known"):
        ct2_to_state_dict(ggml, config)
    with pytest.raises(ValueError, match="specification must be known, but got 'Bert"):
        ct2_to_state_dict(ct2.replace(b"WhisperSpec", b"BertSpec___"), config)
    with pytest.raises(ValueError, match="variable must be a Whisper's, but got"):
        ct2_to_state_dict(ct2.replace(b"encoder/conv1", b"encoder/conv9"), config)


def test_size_that_contradicts_the_shape_is_an_error(state, config):
    head = struct.pack("<I", 6) + ct2_name("WhisperSpec") + struct.pack("<II", 3, 1)
    variable = ct2_name("decoder/odd") + struct.pack("<BIBI", 1, 4, 0, 12) + bytes(12)
    with pytest.raises(ValueError, match="size of decoder/odd must be 16 bytes"):
        ct2_to_state_dict(head + variable, config)


def test_check_names_the_offenders(state, config):
    short = dict(state)
    tensor = short.pop("model.encoder.conv1.bias")
    with pytest.raises(ValueError, match="conv1.bias missing instead of"):
        check_state_dict(short, config)
    with pytest.raises(ValueError, match=r"extra \(8,\) instead of none"):
        check_state_dict({**state, "extra": tensor}, config)
    wider = WhisperConfig.from_dict({**config.to_dict(), "encoder_ffn_dim": 32})
    with pytest.raises(ValueError, match="weights must fit .* 6 tensors"):
        check_state_dict(state, wider)


def test_empty_shape_is_an_error(state, config):
    tensor = struct.pack("<5I", 2, 5, 0, 0, 2**31) + b"empty"
    with pytest.raises(ValueError, match="shape of tensor empty must be 1 to 4 posit"):
        ggml_to_state_dict(write_ggml(state, config) + tensor)


def test_random_bytes_never_escape_value_error(state, config):
    rng = np.random.default_rng(0)
    for data, read in (
        (write_ggml(state, config), ggml_to_state_dict),
        (write_ct2(state, config), lambda data: ct2_to_state_dict(data, config)),
    ):
        for _ in range(100):
            damaged = bytearray(data)
            for at in rng.integers(0, len(data), 8):
                damaged[at] = rng.integers(0, 256)
            try:
                read(bytes(damaged))
            except ValueError:
                continue
