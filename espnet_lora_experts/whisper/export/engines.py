"""Other programs that run what was exported, to compare their transcripts with ours.

All decode greedily, without timestamps, and without what they add to a model by
default: tokens left out, thresholds, second attempts, voice activity detection.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from transformers import pipeline

from espnet_lora_experts.whisper.audio import SAMPLE_RATE
from espnet_lora_experts.whisper.features import MAX_SAMPLES
from espnet_lora_experts.whisper.prompt import Prompter

Transcribe = Callable[[np.ndarray, str], str]
"""Takes samples at 16 kHz, at most 30 s, and the language's code to a transcript."""

MAX_TOKENS = 224
"""Most tokens of a transcript, as :class:`~..decoding.DecodeOptions` has it."""
EXACT = {
    "beam_size": 1,
    "temperature": 0.0,
    "without_timestamps": True,
    "suppress_tokens": [],
    "suppress_blank": False,
    "condition_on_previous_text": False,
    "compression_ratio_threshold": None,
    "log_prob_threshold": None,
    "no_speech_threshold": None,
    "vad_filter": False,
    "max_new_tokens": MAX_TOKENS,
}
"""Options of faster-whisper with which it decodes the model and nothing else."""
PLAIN = {
    "print_progress": False,
    "no_timestamps": True,
    "single_segment": True,
    "suppress_blank": False,
    "temperature_inc": 0.0,
    "greedy": {"best_of": 1},
    "entropy_thold": -float("inf"),
    "logprob_thold": -float("inf"),
    "no_speech_thold": float("inf"),
    "max_tokens": MAX_TOKENS,
}
"""The same of whisper.cpp."""


def faster_whisper(
    folder: Path, compute_type: str = "default", silence: bool = True
) -> Transcribe:
    """Runs a folder of CTranslate2.

    Args:
        folder: The export.
        compute_type: faster-whisper's; by default as the weights are.
        silence: Pad clips with silence to 30 s, as ours are. Left to itself,
            faster-whisper pads their features with zeros, which are no silence.

    Raises:
        ValueError: faster-whisper is not installed.
    """
    try:
        from faster_whisper import WhisperModel
    except ImportError as error:
        raise _lacks("faster-whisper", error) from error
    model = WhisperModel(
        str(folder), compute_type=compute_type, cpu_threads=torch.get_num_threads()
    )
    language = _tokens_code(Prompter(folder))

    def transcribe(speech: np.ndarray, lang: str) -> str:
        speech = _padded(speech) if silence else speech
        segments, _ = model.transcribe(speech, language=language(lang), **EXACT)
        return "".join(segment.text for segment in segments).strip()

    return transcribe


def transformers_pipeline(folder: Path) -> Transcribe:
    """Runs a Hugging Face folder by transformers' own pipeline, whose default is beams.

    Args:
        folder: The export.
    """
    run = pipeline("automatic-speech-recognition", model=str(folder))
    language = _tokens_code(Prompter(folder))
    model = run.model
    model.generation_config.update(
        num_beams=1,
        max_new_tokens=model.config.max_target_positions // 2,
        max_length=None,  # else a warning of two bounds, for every clip
    )

    def transcribe(speech: np.ndarray, lang: str) -> str:
        clip = {"raw": speech, "sampling_rate": SAMPLE_RATE}
        return run(clip, generate_kwargs={"language": language(lang)})["text"].strip()

    return transcribe


def whisper_cpp(path: Path, prompter: Prompter) -> Transcribe:
    """Runs a ggml file by whisper.cpp; a clip is padded with silence to 30 s, as ours.

    Args:
        path: The export.
        prompter: The vocabulary, which the file has without the languages.

    Raises:
        ValueError: pywhispercpp is not installed.
    """
    try:
        from pywhispercpp.model import Model
    except ImportError as error:
        raise _lacks("pywhispercpp", error) from error
    model = Model(
        str(path),
        redirect_whispercpp_logs_to=None,
        n_threads=torch.get_num_threads(),
        **PLAIN,
    )
    language = _tokens_code(prompter)

    def transcribe(speech: np.ndarray, lang: str) -> str:
        segments = model.transcribe(_padded(speech), language=language(lang))
        return "".join(segment.text for segment in segments).strip()

    return transcribe


def _padded(speech: np.ndarray) -> np.ndarray:
    return np.pad(speech, (0, MAX_SAMPLES - len(speech)))


def _lacks(package: str, error: ImportError) -> ValueError:
    return ValueError(
        f"{package} must be installed to run what was exported, but is not ({error}): "
        "pip install 'espnet_lora_experts[export]', or leave out --test_set"
    )


def _tokens_code(prompter: Prompter) -> Callable[[str], str]:
    """Takes a language to the code of its token, which may be another's."""
    return lambda lang: prompter.tokens([prompter.language(lang)])[0].strip("<|>")
