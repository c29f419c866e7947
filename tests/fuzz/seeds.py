"""Small good files of each kind, which the fuzzer changes."""

from __future__ import annotations

import io
import json
import struct
import tarfile
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import soundfile
import torch
from safetensors.torch import save
from torch import nn
from transformers import WhisperConfig, WhisperForConditionalGeneration

from espnet_lora_experts.experts.bank import ExpertBank, lora_config
from espnet_lora_experts.experts.store import PREFIX, save_expert
from tests.fuzz.mutate import Case
from tests.whisper.conftest import ggml_tensor
from tests.whisper.test_convert_ct2 import write_ct2

SMALL = {
    "vocab_size": 20,
    "d_model": 4,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 4,
    "decoder_ffn_dim": 4,
    "num_mel_bins": 2,
    "max_source_positions": 4,
    "max_target_positions": 4,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 1,
    "decoder_start_token_id": 2,
}
SYSTEM = {
    "type": "single",
    "languages": ["es", "ru"],
    "backbone": {"name": "openai/whisper-tiny", "sha256": "ab" * 32},
    "experts": {"es": "."},
    "mole": {"merged_layers": 1, "combination": "factor", "pooling": "mean"},
}
YAML = (
    b"model: lora_experts\nbackbone: openai/whisper-tiny\nmodel_conf:\n    r: 4\n"
    b"    languages: [es, 'no']\nmax_epoch: 3\nseed: 0\noptim: adamw\noptim_conf:\n"
    b"    lr: 1.0e-04\nbatch_bins: 1000\ntrain_data_path_and_name_and_type:\n"
    b"-   - dump/raw/train/wav.scp\n    - speech\n    - sound\n"
    b"token_list:\n- '!'\n- a\n"
    b"date: 2026-01-02\n"
)
META = "files: {asr_model_file: a/1.pth}\nyaml_files: {asr_train_config: a/c.y}\n"
CARD = (
    b"---\nlanguage:\n- es\n- 'no'\nlicense: cc-by-4.0\nlibrary_name: peft\n"
    b"model-index:\n- name: x\n  results:\n  - task:\n      type: asr\n---\n\n# X\n"
)


def small_bank() -> ExpertBank:
    """A bank of a model of two layers."""
    layers = {"first": nn.Linear(6, 5), "second": nn.Linear(5, 4)}
    return ExpertBank(nn.ModuleDict(layers))


def whisper() -> tuple[WhisperConfig, dict[str, torch.Tensor]]:
    """Configuration and tensors of the smallest Whisper."""
    config = WhisperConfig(**SMALL)
    torch.manual_seed(0)
    state = WhisperForConditionalGeneration(config).state_dict()
    return config, {k: v for k, v in state.items() if k != "proj_out.weight"}


def adapters() -> list[Case]:
    """PEFT adapter folders: by names, by an expression, with ranks by layer."""
    cases = []
    for targets in (["first", "second"], ".*(first|second)"):
        bank = small_bank()
        bank.add("es", lora_config(2, target_modules=targets), seed=0)
        with tempfile.TemporaryDirectory() as folder:
            save_expert(bank, "es", folder, "tiny", {"backbone_sha256": "ab"})
            cases.append({p.name: p.read_bytes() for p in Path(folder).iterdir()})
    config = json.loads(cases[0]["adapter_config.json"])
    config |= {"rank_pattern": {"first": 2}, "alpha_pattern": {"^first$": 3}}
    short = {k: config[k] for k in ("peft_type", "r", "lora_alpha", "target_modules")}
    for changed in (config, short):
        written = json.dumps(changed).encode()
        cases.append({**cases[0], "adapter_config.json": written})
    return cases


def checkpoint(name: str) -> list[Case]:
    """Files of torch.save."""
    tensors = {PREFIX + "first.lora_A.weight": torch.ones(2, 6), "b": torch.ones(3)}
    more = {
        "backbone_sha256": torch.zeros(32, dtype=torch.uint8),
        "c": torch.ones(1).half(),
    }
    cases = []
    for state in (tensors, tensors | more):
        stream = io.BytesIO()
        torch.save(state, stream)
        cases.append({name: stream.getvalue()})
    return cases


def systems() -> list[Case]:
    """Folders of systems."""
    adapter = adapters()[0]
    mole = {**SYSTEM, "type": "mole", "experts": {"es": ".", "ru": "."}}
    return [
        {**adapter, "system.json": json.dumps(what).encode(), "README.md": CARD}
        for what in (SYSTEM, mole)
    ]


def whisper_folders() -> list[Case]:
    """Whispers in Hugging Face's layout."""
    config, state = whisper()
    weights = save(state, {"format": "pt"})
    return [
        {"config.json": config.to_json_string().encode(), "model.safetensors": weights}
    ]


def ggml() -> list[Case]:
    """Files of whisper.cpp, float32 and float16."""
    config, state = whisper()
    cases = []
    for ftype in (0, 1):
        sizes = (20, 4, 4, 2, 1, 4, 4, 2, 1, 2, ftype)
        head = struct.pack("<12i", 0x67676D6C, *sizes) + struct.pack("<2i", 1, 2)
        words = bytes(8) + struct.pack("<i", 2) + struct.pack("<i2si", 2, b"ab", 0)
        body = b"".join(ggml_tensor(k, v, ftype) for k, v in state.items())
        cases.append({"model.bin": head + words + body})
    return cases


def ct2() -> list[Case]:
    """Files of CTranslate2, float32 and float16."""
    config, state = whisper()
    return [{"model.bin": write_ct2(state, config, dtype)} for dtype in ("f4", "f2")]


def packed() -> list[Case]:
    """Zips as ESPnet packs them, stored and compressed."""
    cases = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", method) as archive:
            archive.writestr("meta.yaml", META)
            archive.writestr("a/c.y", YAML)
            archive.writestr("a/1.pth", b"abc")
        cases.append({"model.zip": stream.getvalue()})
    return cases


def audio() -> list[Case]:
    """A tenth of a second in each format, of each width."""
    samples = 0.1 * np.sin(np.arange(1600) / 5)
    kinds = (("WAV", "PCM_16"), ("WAV", "ULAW"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"))
    kinds += (("MP3", "MPEG_LAYER_III"), ("AIFF", "FLOAT"), ("W64", "PCM_24"))
    cases = []
    for form, subtype in kinds:
        for channels, rate in ((1, 16000), (2, 8000)):
            stream = io.BytesIO()
            both = np.stack([samples] * channels, axis=1)
            soundfile.write(stream, both, rate, format=form, subtype=subtype)
            cases.append({"a.wav": stream.getvalue()})
    return cases


def deb() -> list[Case]:
    """A Debian package, and the scripts of its speech."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, kind in (("./a/b.txt", tarfile.REGTYPE), ("./l", tarfile.SYMTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.size, info.linkname = kind, 3 * (kind == b"0"), "a/b.txt"
            tar.addfile(info, io.BytesIO(b"abc"))
    content = stream.getvalue()
    head = f"{'data.tar.gz':16}{0:<12}{0:<6}{0:<6}{'100644':8}{len(content):<10}`\n"
    return [{"p_1_all.deb": b"!<arch>\n" + head.encode() + content}]
