"""A user's file becomes the same Whisper with its own tokenizer, or a named error.

The same of a folder of CTranslate2 is in test_convert_ct2.py.
"""

import json

import pytest
from transformers import WhisperForConditionalGeneration

from espnet_lora_experts.whisper import convert_local
from espnet_lora_experts.whisper.convert_local import (
    CT2_WEIGHTS,
    GENERATION,
    content_hash,
    convert,
    is_foreign,
)
from espnet_lora_experts.whisper.hub import missing_files, weights_sha256
from espnet_lora_experts.whisper.prompt import NO_TIMESTAMPS, Prompter


@pytest.fixture
def source(make_whisper, write_ggml, tmp_path):
    """A whisper.cpp file, alone in its folder."""
    whisper, path = make_whisper(), tmp_path / "mine" / "ggml-mine.bin"
    path.parent.mkdir()
    state = {k: v for k, v in whisper.state_dict().items() if k != "proj_out.weight"}
    path.write_bytes(write_ggml(state, whisper.config))
    return path


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def lend(whisper_folder, folder, names=("tokenizer.json",)):
    for name in names:
        (folder / name).write_bytes((whisper_folder / name).read_bytes())


def nobody():
    raise AssertionError("no other tokenizer may be asked for")


def test_file_becomes_the_whisper(source, out, whisper_folder, make_whisper):
    lend(whisper_folder, source.parent)
    convert(source, out, nobody)
    assert missing_files(out) == []
    loaded, info = WhisperForConditionalGeneration.from_pretrained(
        out, output_loading_info=True
    )
    assert not any(info.values())
    assert weights_sha256(loaded) == weights_sha256(make_whisper())
    own, known = loaded.config.to_dict(), make_whisper().config.to_dict()
    keys = [k for k in known if k.endswith(("_id", "size", "layers", "heads", "dim"))]
    assert {k: own[k] for k in keys} == {k: known[k] for k in keys}
    assert Prompter(out).vocab == Prompter(whisper_folder).vocab


def test_generation_config_beside_the_file_is_kept(source, out, whisper_folder):
    lend(whisper_folder, source.parent)
    text = json.dumps({"suppress_tokens": [1, 2]})
    (source.parent / GENERATION).write_text(text)
    convert(source, out, nobody)
    assert (out / GENERATION).read_text() == text


def test_tokenizer_is_borrowed_where_the_vocabulary_is_shared(
    source, out, whisper_folder, make_whisper, monkeypatch
):
    size = make_whisper().config.vocab_size
    with pytest.raises(ValueError, match=f"mine must have the tokenizer.json .*{size}"):
        convert(source, out, lambda: whisper_folder)
    monkeypatch.setattr(convert_local, "SHARED_VOCABULARY", size)
    convert(source, out, lambda: whisper_folder)
    assert Prompter(out).vocab == Prompter(whisper_folder).vocab


@pytest.mark.parametrize("change", ["another token", "no Whisper's"])
def test_tokenizer_of_another_model_is_an_error(source, out, whisper_folder, change):
    """Of another vocabulary, as large-v3's for an earlier Whisper, or of no Whisper."""
    tokenizer = json.loads((whisper_folder / "tokenizer.json").read_text())
    [token] = [x for x in tokenizer["added_tokens"] if x["content"] == NO_TIMESTAMPS]
    tokenizer["added_tokens"].remove(token)
    if change == "another token":
        later = token | {"id": token["id"] + 1}
        tokenizer["added_tokens"] += [token | {"content": "<|yue|>"}, later]
    (source.parent / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ValueError, match=f"tokenizer in {source.parent} must be that"):
        convert(source, out, nobody)


def test_timestamps_may_follow_the_tokenizers_last(
    out, write_ggml, whisper_folder, make_whisper, tmp_path
):
    """In some tokenizer files they are missing; the weights have them."""
    size = make_whisper().config.vocab_size + convert_local.TIMESTAMPS
    whisper = make_whisper(vocab_size=size)
    state = {k: v for k, v in whisper.state_dict().items() if k != "proj_out.weight"}
    path = tmp_path / "timed.bin"
    path.write_bytes(write_ggml(state, whisper.config))
    lend(whisper_folder, tmp_path)
    convert(path, out, nobody)
    loaded = WhisperForConditionalGeneration.from_pretrained(out)
    assert weights_sha256(loaded) == weights_sha256(whisper)


@pytest.mark.parametrize("kept", [0, 0.5, 0.999])
def test_broken_file_is_named(source, out, kept):
    data = source.read_bytes()
    source.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(ValueError, match=f"^{source} must be a Whisper of .* f16, but"):
        convert(source, out, nobody)


def test_content_decides_the_hash(source, whisper_folder, tmp_path):
    first = content_hash(source)
    (source.parent / "notes.txt").write_text("of no matter")
    moved = source.rename(source.with_name("other.bin"))
    assert content_hash(moved) == first
    lend(whisper_folder, moved.parent)
    second = content_hash(moved)
    moved.write_bytes(moved.read_bytes() + b"\0")
    assert len({first, second, content_hash(moved)}) == 3
    moved.rename(moved.with_name(CT2_WEIGHTS))
    assert len(content_hash(moved.parent)) == 64


def test_whats_foreign(source, whisper_folder, tmp_path):
    assert is_foreign(source)
    assert not is_foreign(source.parent)
    assert not is_foreign(whisper_folder)
    assert not is_foreign(tmp_path / "openai" / "whisper-tiny")
    source.rename(source.with_name(CT2_WEIGHTS))
    assert is_foreign(source.parent)
    lend(whisper_folder, source.parent, ["model.safetensors"])  # transformers' first
    assert not is_foreign(source.parent)
