"""Utterances as the models take them."""

import numpy as np
import pytest
import soundfile
import torch

from espnet_lora_experts.plugin.preprocessor import (
    WhisperPreprocessor,
    decode_languages,
    encode_language,
)
from espnet_lora_experts.plugin.task import LoraExpertsTask
from espnet_lora_experts.whisper.features import MAX_SAMPLES
from espnet_lora_experts.whisper.languages import TABLE


@pytest.fixture
def process(folder_30s):
    def process(train=False, **conf):
        return WhisperPreprocessor(train, bpemodel=str(folder_30s), **conf)

    return process


def utterance(**fields):
    return {"speech": np.ones(100, np.float32), "text": "uno", "lang": "es", **fields}


@pytest.mark.parametrize(
    "code, token, text", [("es", "<|es|>", " uno"), ("yue", "<|zh|>", "uno")]
)
def test_text_gets_its_languages_prompt(process, prompter, code, token, text):
    out = process()("u", utterance(lang=code))
    ids = out["text"]
    assert decode_languages(out["lang"][None]) == [code]
    prompt = ["<|startoftranscript|>", token, "<|transcribe|>", "<|notimestamps|>"]
    assert ids.dtype == np.int64
    assert [prompter.vocab[x] for x in prompt] == ids[:4].tolist()
    assert prompter.tokenizer.decode(ids[4:]) == text


def test_empty_text_is_the_prompt_alone(process):
    assert len(process()("u", utterance(text=""))["text"]) == 4


@pytest.mark.parametrize(
    "code, letter, count, fits",
    [
        ("es", "x", 27, True),  # 32 positions: four of the prompt and a space
        ("es", "x", 28, False),
        ("ja", "x", 28, True),  # no space
        ("ja", "い", 9, True),  # three bytes each
        ("ja", "い", 10, False),
    ],
)
def test_text_must_fit_into_the_decoder(process, code, letter, count, fits):
    whole, text = process(), letter * count
    assert whole.positions == 32 and whole.fits(text, code) == fits
    ids = whole("u", utterance(text=text, lang=code))["text"]
    assert (len(ids) <= 32) == fits


def test_language_is_a_default_for_utterances_without(process):
    given = utterance()
    del given["lang"]
    for fields, code in ((given, "ru"), (utterance(), "es")):
        lang = process(language="ru")("u", fields)["lang"]
        assert decode_languages(lang[None]) == [code]


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"lang": None}, "utterance u must have a language: .*utt2lang"),
        ({"lang": "xx"}, "must be a code of the table, but got 'xx'"),
        ({"lang": "fi"}, "vocabulary must have a token of language 'fi'"),
        ({"speech": np.zeros(0, np.float32)}, "utterance u must have samples"),
    ],
)
def test_errors_name_the_utterance_or_language(process, fields, message):
    with pytest.raises(ValueError, match=message):
        process()("u", utterance(**fields))


def test_speech_without_text_needs_no_language(process):
    """In decoding, where the model finds it."""
    given = utterance()
    del given["lang"], given["text"]
    assert set(process()("u", given)) == {"speech"}


def test_backbone_must_be_given():
    with pytest.raises(ValueError, match="bpemodel must be the backbone"):
        WhisperPreprocessor(train=True)


def test_every_code_survives_a_padded_batch():
    codes = sorted(TABLE)
    rows = [torch.from_numpy(encode_language(code)) for code in codes]
    padded = torch.nn.utils.rnn.pad_sequence(rows, True, padding_value=-1)
    assert decode_languages(padded) == codes


def test_stereo_becomes_one_channel(process):
    speech = np.random.RandomState(0).randn(50, 2).astype(np.float32)
    out = process()("u", utterance(speech=speech))["speech"]
    assert out.shape == (50,)


@pytest.fixture
def noise(tmp_path):
    """A noise and a room, listed as ESPnet wants them."""
    rng, lists = np.random.RandomState(1), {}
    for name, samples in (("noise", 16_000), ("rir", 800)):
        soundfile.write(tmp_path / f"{name}.wav", rng.uniform(-1, 1, samples), 16_000)
        lists[name] = tmp_path / f"{name}.scp"
        lists[name].write_text(f"{name}1 {tmp_path / name}.wav\n")
    return {name: str(path) for name, path in lists.items()}


AUGMENTATIONS = {
    "noise": lambda lists: {"noise_scp": lists["noise"], "noise_db_range": "5_10"},
    "reverberation": lambda lists: {"rir_scp": lists["rir"]},
    "volume": lambda lists: {"speech_volume_normalize": 0.1},
    "effects": lambda lists: {
        "preprocessor_conf": {
            "fs": 16_000,
            "data_aug_effects": [[1.0, "polarity_inverse", {}]],
            "data_aug_num": [1, 1],
            "data_aug_prob": 1.0,
        }
    },
}


@pytest.mark.parametrize("options", AUGMENTATIONS.values(), ids=AUGMENTATIONS)
def test_espnets_augmentation_is_reachable(arguments, noise, options):
    """Through the task's own options; it changes the audio in training only."""
    args = arguments(use_preprocessor=True, **options(noise))
    speech = np.random.RandomState(0).uniform(-0.5, 0.5, 8000).astype(np.float32)
    outs = {}
    for train in (True, False):
        process = LoraExpertsTask.build_preprocess_fn(args, train)
        outs[train] = process("u", utterance(speech=speech.copy()))["speech"]
        assert outs[train].shape == speech.shape
    assert not np.allclose(outs[True], speech)
    if "speech_volume_normalize" not in options(noise):
        assert np.array_equal(outs[False], speech)


@pytest.mark.parametrize(
    "samples, factor, expected",
    [
        (8000, 0.5, 16_000),
        (MAX_SAMPLES // 2, 0.5, MAX_SAMPLES),
        (MAX_SAMPLES // 2 + 1, 0.5, MAX_SAMPLES // 2 + 1),
        (MAX_SAMPLES, 2.0, MAX_SAMPLES // 2),
    ],
)
def test_effects_never_make_a_clip_longer_than_30_s(
    arguments, samples, factor, expected
):
    """Such a clip stays as it was, to the last bit."""
    conf = {
        "fs": 16_000,
        "data_aug_effects": [[1.0, "speed_perturb", {"factor": factor}]],
        "data_aug_num": [1, 1],
        "data_aug_prob": 1.0,
    }
    args = arguments(use_preprocessor=True, preprocessor_conf=conf)
    process = LoraExpertsTask.build_preprocess_fn(args, train=True)
    speech = np.random.RandomState(0).uniform(-0.5, 0.5, samples).astype(np.float32)
    out = process("u", utterance(speech=speech.copy()))["speech"]
    assert len(out) == expected
    assert np.array_equal(out, speech) == (expected == samples)
