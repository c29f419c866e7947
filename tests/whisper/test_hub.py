"""From a name to a folder: local, cached, packaged, or one clear error."""

import subprocess
import threading
import time
from multiprocessing import get_context

import huggingface_hub
import pytest
import torch
from transformers import WhisperForConditionalGeneration

from espnet_lora_experts.whisper import convert_local, hub, packages, snapshot
from espnet_lora_experts.whisper.hub import resolve, weights_sha256
from espnet_lora_experts.whisper.packages import Fallback

NAME = "tests/whisper-random"

pytestmark = pytest.mark.usefixtures("offline")


def load(folder):
    return WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)


def model_info(self, name, **kwargs):
    return huggingface_hub.hf_api.ModelInfo(id=name)


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
    ],
)
def test_missing_file_of_a_local_folder_is_named(local, name, named):
    (local / name).unlink()
    with pytest.raises(FileNotFoundError, match=named):
        resolve(str(local))


def test_preprocessor_files_are_not_needed(local):
    (local / "preprocessor_config.json").unlink()
    assert resolve(str(local)) == local


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


def test_a_killed_build_lets_the_next_go_on(download_dir, monkeypatch, tmp_path):
    """Two processes, one cache: the one that waits finds nothing half, and builds."""
    fork, results = get_context("fork"), []
    begun = fork.Event()

    def hang(fallback, out, download_dir):
        (out / "model.safetensors").write_bytes(b"half")
        begun.set()
        time.sleep(60)

    with monkeypatch.context() as patched:
        patched.setattr(hub, "build", hang)
        killed = fork.Process(target=resolve, args=(NAME, download_dir))
        killed.start()
    assert begun.wait(30)
    other = threading.Thread(target=lambda: results.append(resolve(NAME, download_dir)))
    other.start()
    other.join(0.2)
    assert other.is_alive() and not results
    killed.kill()
    killed.join()
    other.join(30)
    assert results == [tmp_path / "cache" / "tests--whisper-random"]
    load(results[0])


def test_failed_build_leaves_nothing(download_dir, monkeypatch, tmp_path):
    def fail(data, config):
        raise ValueError("broken weights")

    fallback = packages.FALLBACKS[NAME]
    broken = Fallback(fallback.weights, fail, fallback.texts, fallback.folder)
    monkeypatch.setitem(packages.FALLBACKS, NAME, broken)
    with pytest.raises(ValueError, match="broken weights"):
        resolve(NAME, download_dir)
    assert [p.name for p in (tmp_path / "cache").iterdir() if p.is_dir()] == []


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
    monkeypatch.setattr(snapshot, "HUB_TIMEOUT", 0.1)
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

    def snapshot_download(name, allow_patterns, local_files_only=False, **kwargs):
        if local_files_only:
            raise FileNotFoundError("not cached")
        asked.append((name, allow_patterns))
        return str(local)

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert resolve("nobody/whisper-unknown") == local
    assert asked == [("nobody/whisper-unknown", hub.PATTERNS)]


@pytest.mark.parametrize(
    "error",
    [
        OSError("cannot reach the CDN"),
        huggingface_hub.errors.LocalEntryNotFoundError("no connection"),
        huggingface_hub.errors.HTTPError("timed out"),  # httpx's, no OSError
        RuntimeError("xet"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_hub_that_answers_but_does_not_download(
    download_dir, monkeypatch, tmp_path, caplog, error
):
    """As one that does not answer: the packages come next, and the reason is told."""

    def snapshot_download(name, allow_patterns, local_files_only=False, **kwargs):
        raise OSError("not cached") if local_files_only else error

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    reason = f"{type(error).__name__}: {error}"
    assert resolve(NAME, download_dir) == tmp_path / "cache" / "tests--whisper-random"
    assert f"{NAME} must download from the hub, but: {reason}" in caplog.text
    with pytest.raises(FileNotFoundError, match=f"hub: no download, {reason}"):
        resolve("nobody/whisper-unknown")


@pytest.fixture
def ggml(make_whisper, whisper_folder, write_ggml, tmp_path):
    """A whisper.cpp file with a tokenizer beside it."""
    whisper, path = make_whisper(), tmp_path / "mine" / "ggml-mine.bin"
    path.parent.mkdir()
    state = {k: v for k, v in whisper.state_dict().items() if k != "proj_out.weight"}
    path.write_bytes(write_ggml(state, whisper.config))
    tokenizer = (whisper_folder / "tokenizer.json").read_bytes()
    (path.parent / "tokenizer.json").write_bytes(tokenizer)
    return path


def test_users_own_file_is_converted_once(ggml, make_whisper, monkeypatch, tmp_path):
    folder = resolve(str(ggml))
    assert folder.parent == tmp_path / "cache"
    assert weights_sha256(load(folder)) == weights_sha256(make_whisper())
    monkeypatch.setattr(hub, "convert", no_download)
    assert resolve(str(ggml)) == folder
    ggml.write_bytes(ggml.read_bytes()[:-4] + bytes(4))
    with pytest.raises(AssertionError):  # another content is another model
        resolve(str(ggml))


def test_broken_file_of_a_user_leaves_nothing(ggml, tmp_path):
    ggml.write_bytes(ggml.read_bytes()[:-1])
    with pytest.raises(ValueError, match=f"^{ggml} must be a Whisper of whisper.cpp"):
        resolve(str(ggml))
    assert [p.name for p in (tmp_path / "cache").iterdir() if p.is_dir()] == []


def test_users_file_without_tokenizer_borrows_tinys(
    ggml, whisper_folder, monkeypatch, make_whisper
):
    size = make_whisper().config.vocab_size
    monkeypatch.setattr(convert_local, "SHARED_VOCABULARY", size)
    monkeypatch.setattr(hub, "RELATIVE", str(whisper_folder))
    (ggml.parent / "tokenizer.json").unlink()
    borrowed = resolve(str(ggml)) / "tokenizer.json"
    assert borrowed.read_bytes() == (whisper_folder / "tokenizer.json").read_bytes()


def test_hash_ignores_where_and_in_which_type_the_weights_were(model):
    exact = {k: v.half().float() for k, v in model.state_dict().items()}
    model.load_state_dict(exact)
    digest = weights_sha256(model)
    assert len(digest) == 64
    assert weights_sha256(model.half()) == digest


def test_one_value_changes_the_hash(model, tiny):
    digest = weights_sha256(model)
    assert weights_sha256(tiny()) == digest
    with torch.no_grad():
        model.model.decoder.layers[0].fc2.bias[3] += 1e-6
    assert weights_sha256(model) != digest


def test_tied_projection_counts_once(model):
    digest = weights_sha256(model)
    model.proj_out = torch.nn.Identity()
    assert weights_sha256(model) == digest
