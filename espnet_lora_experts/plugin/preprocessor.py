"""Utterances as the models take them: waveform, prompted text, language."""

from __future__ import annotations

import numpy as np
from espnet2.train.preprocessor import CommonPreprocessor

from espnet_lora_experts.whisper import hub, languages
from espnet_lora_experts.whisper.prompt import Prompter


class WhisperPreprocessor(CommonPreprocessor):
    """ESPnet's preprocessor with Whisper's prompt in each utterance's own language.

    ``text`` becomes the ids of ``<|startoftranscript|><|lang|><|transcribe|>
    <|notimestamps|> text`` (ESPnet's ``sos``/``eos`` convention: the end is the model's
    to add), and ``lang``, the language code, becomes its characters' code points.
    Noise, reverberation, volume and data augmentation are ESPnet's.

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
        self.prompter = Prompter(hub.resolve(bpemodel))
        self.language = language

    def __call__(self, uid: str, data: dict) -> dict[str, np.ndarray]:
        """Processes one utterance.

        Raises:
            ValueError: No language, an unknown one, or a waveform without samples.
        """
        code = data.pop("lang", self.language)
        if code is None:
            raise ValueError(
                f"utterance {uid} must have a language: list it in utt2lang and give "
                "that as data named 'lang', or set preprocessor_conf: {language: ...}"
            )
        code = str(code).strip()
        data = self._speech_process(data)
        if "speech" in data and len(data["speech"]) == 0:
            raise ValueError(
                f"utterance {uid} must have samples, but its audio is empty"
            )
        if "text" in data and isinstance(data["text"], str):
            ids = self.prompter.prompt(code) + self.prompter.encode(data["text"], code)
            data["text"] = np.array(ids, dtype=np.int64)
        data["lang"] = encode_language(languages.get(code).code)
        return data


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
