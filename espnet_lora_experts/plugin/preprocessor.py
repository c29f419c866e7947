"""Utterances as the models take them: waveform, prompted text, language."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
from espnet2.train.preprocessor import CommonPreprocessor

from espnet_lora_experts.whisper import hub, languages
from espnet_lora_experts.whisper.features import FRAME_PAIR, MAX_SAMPLES
from espnet_lora_experts.whisper.prompt import PROMPT_LENGTH, Prompter


class WhisperPreprocessor(CommonPreprocessor):
    """ESPnet's preprocessor with Whisper's prompt in each utterance's own language.

    ``text`` becomes the ids of ``<|startoftranscript|><|lang|><|transcribe|>
    <|notimestamps|> text`` (ESPnet's ``sos``/``eos`` convention: the end is the model's
    to add), and ``lang``, the language code, becomes its characters' code points.
    Noise, reverberation, volume and data augmentation are ESPnet's; a clip that its
    effects (``speed_perturb``) make longer than 30 s stays as it was before them.

    Args:
        train: Training or not; augmentation is for training.
        bpemodel: The backbone: hub id or folder; its tokenizer is used.
        language: Language of utterances that have no ``lang``.
        kwargs: As ESPnet's ``CommonPreprocessor`` takes them.
    """

    def __init__(
        self,
        train: bool,
        bpemodel: str | None = None,
        language: str | None = None,
        token_type: str | None = None,
        token_list=None,
        **kwargs,
    ):
        kwargs.setdefault("force_single_channel", True)
        super().__init__(
            train=train, **{k: v for k, v in kwargs.items() if v is not None}
        )
        if bpemodel is None:
            raise ValueError(
                "bpemodel must be the backbone (hub id or folder), got None"
            )
        if self.data_aug is not None:
            self.data_aug = partial(_within_30_s, self.data_aug)
        folder = hub.resolve(bpemodel)
        self.prompter = Prompter(folder)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self.positions: int = config["max_target_positions"]
        self.language = language

    def __call__(self, uid: str, data: dict) -> dict[str, np.ndarray]:
        """Processes one utterance; one without text needs no language.

        Raises:
            ValueError: A text without language, an unknown one, or a waveform without
                samples.
        """
        code = data.pop("lang", self.language)
        if code is None and "text" in data:
            raise ValueError(
                f"utterance {uid} must have a language: list it in utt2lang and give "
                "that as data named 'lang', or set preprocessor_conf: {language: ...}"
            )
        data = self._speech_process(data)
        if "speech" in data and len(data["speech"]) == 0:
            raise ValueError(
                f"utterance {uid} must have samples, but its audio is empty"
            )
        if code is None:
            return data
        code = languages.get(str(code).strip()).code
        if "text" in data and isinstance(data["text"], str):
            data["text"] = np.array(self._ids(data["text"], code), dtype=np.int64)
        data["lang"] = encode_language(code)
        return data

    def fits(self, text: str, code: str, samples: int = MAX_SAMPLES) -> bool:
        """Whether a text has room in the decoder's positions, and in its speech.

        Nobody speaks more tokens than the encoder has positions, one in 20 ms; decoding
        ends there too (``maxlenratio``).
        """
        room = min(self.positions, PROMPT_LENGTH + 1 + samples // FRAME_PAIR)
        most = PROMPT_LENGTH + len(f" {text}".encode())  # a token is a byte or more
        return most <= room or len(self._ids(text, code)) <= room

    def _ids(self, text: str, code: str) -> list[int]:
        return self.prompter.prompt(code) + self.prompter.encode(text, code)


def _within_30_s(effects, speech: np.ndarray, fs: int) -> np.ndarray:
    changed = effects(speech, fs)
    return changed if len(changed) <= MAX_SAMPLES else speech


def encode_language(code: str) -> np.ndarray:
    """A language code as integers, so that it can ride in a batch of tensors."""
    return np.array([ord(letter) for letter in code], dtype=np.int64)


def decode_languages(lang_BC) -> list[str]:
    """The codes of a padded batch of :func:`encode_language`.

    Example:
        >>> import torch
        >>> decode_languages(torch.tensor([[101, 115, -1], [121, 117, 101]]))
        ['es', 'yue']
    """
    return ["".join(chr(c) for c in row if c > 0) for row in lang_BC.tolist()]
