"""ESPnet's decoding with our models: its beam search, from Whisper's prompt."""

from __future__ import annotations

import logging
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import yaml
from espnet2.bin import asr_inference
from torch import Tensor

from espnet_lora_experts.plugin.lm import TextScorer
from espnet_lora_experts.plugin.preprocessor import decode_languages
from espnet_lora_experts.plugin.unpacking import check_checkpoints, unpack_checked
from espnet_lora_experts.whisper import hub
from espnet_lora_experts.whisper.decoding import Recognizer
from espnet_lora_experts.whisper.prompt import PROMPT_LENGTH, Prompter

logger = logging.getLogger(__name__)


class Speech2Text(asr_inference.Speech2Text):
    """ESPnet's ``Speech2Text`` for models of :class:`~.task.LoraExpertsTask`.

    It differs from the one that it inherits from in three points. The search starts
    from Whisper's prompt in the utterance's language, given or found. Token 0 is
    Whisper's "!" and stays; there it is taken for CTC's blank. A language model is one
    of :class:`~.lm.WhisperLMTask`, which reads the text without the prompt.

    Args:
        asr_train_config: The training's ``config.yaml``.
        ctc_weight: Becomes 0: the models have no CTC.
        token_type: Unused, as ``bpemodel``: tokens and text are Whisper's.
        kwargs: As ESPnet's.

    Example:
        >>> packed = "exp/asr_train/asr_train_valid.acc.ave.zip"
        >>> speech2text = Speech2Text.from_pretrained(packed)  # doctest: +SKIP
        >>> [(text, tokens, ids, hypothesis)] = speech2text(speech)  # doctest: +SKIP
    """

    def __init__(
        self,
        asr_train_config: str | Path,
        *,
        ctc_weight: float = 0.0,
        token_type: str | None = None,
        bpemodel: str | None = None,
        **kwargs,
    ):
        if ctc_weight:
            logger.warning(f"ctc_weight: {ctc_weight} becomes 0.0, there is no CTC")
        check_checkpoints(kwargs)  # ESPnet unpickles them whole
        folder = hub.resolve(_backbone(asr_train_config))  # ESPnet knows hub ids only
        super().__init__(
            asr_train_config=asr_train_config,
            ctc_weight=0.0,
            token_type="hugging_face",
            bpemodel=str(folder),
            **kwargs,
        )
        model = self.asr_model
        self.prompter = Prompter(folder)
        self.recognizer = Recognizer(model.backbone, model.system, self.prompter)
        lm = self.beam_search.full_scorers.get("lm")
        if lm is not None:
            scorer = TextScorer(lm, self.prompter.eot)
            search = self.beam_search
            search.scorers["lm"] = search.full_scorers["lm"] = scorer
            search.nn_dict["lm"] = scorer

    @torch.no_grad()
    def __call__(self, speech, lang: str | Tensor | None = None) -> list[tuple]:
        """Recognizes one utterance.

        Args:
            speech: Samples at 16 kHz, (S,).
            lang: Language code, or as :func:`~.preprocessor.encode_language` writes it
                into batches; None finds it.

        Returns:
            ESPnet's n-best list of ``(text, tokens, ids, hypothesis)``.

        Raises:
            ValueError: A language that the model was not trained for.
        """
        speech = torch.as_tensor(speech, device=self.device)
        speech = speech.to(getattr(torch, self.dtype))
        logger.info(f"speech length: {len(speech)}")  # where ESPnet's RTF starts
        lengths = torch.tensor([len(speech)], device=self.device)
        if lang is not None and not isinstance(lang, str):
            [lang] = decode_languages(lang[None])
        encoded = self.asr_model.encoded(speech[None], lengths, lang and [lang])
        [found], _ = self.recognizer.find_languages(encoded, lang and [lang])
        self.beam_search.set_hyp_primer(self.prompter.prompt(found))
        nbest = self.beam_search(
            x=encoded.hidden_BPD[0],
            maxlenratio=self.maxlenratio,
            minlenratio=self.minlenratio,
        )
        return [self._result(hypothesis) for hypothesis in nbest[: self.nbest]]

    def _result(self, hypothesis) -> tuple:
        ids = hypothesis.yseq.tolist()[PROMPT_LENGTH:-1]
        tokens = self.prompter.tokens(ids)
        return self.prompter.decode(ids), tokens, ids, hypothesis

    def batch_decode(self, speech, speech_lengths=None, lang=None, lang_lengths=None):
        """A list of utterances or a padded batch, one after the other.

        The hypotheses of one utterance share a cache; several utterances at once are
        decoded by :class:`espnet_lora_experts.Speech2Text`.
        """
        lengths = speech_lengths if speech_lengths is not None else map(len, speech)
        langs = lang if lang is not None else [None] * len(speech)
        rows = zip(speech, lengths, langs, strict=True)
        return [self(row[: int(length)], code) for row, length, code in rows]

    @staticmethod
    def from_pretrained(model_tag: str | None = None, **kwargs) -> Speech2Text:
        """Loads a packed model, or the files that ``kwargs`` name.

        Args:
            model_tag: A zip that ``asr.sh`` packed (its stage 14), or a tag of
                espnet_model_zoo.
            kwargs: See the class.

        Raises:
            FileNotFoundError: A zip that is not there.
        """
        if model_tag is None:
            return Speech2Text(**kwargs)
        if not str(model_tag).endswith(".zip"):
            from espnet_model_zoo.downloader import ModelDownloader

            files = ModelDownloader().download_and_unpack(model_tag)
            return Speech2Text(**files | kwargs)
        if not Path(model_tag).is_file():
            raise FileNotFoundError(
                f"{model_tag} must be a model that asr.sh packed (its stage 14), but "
                "there is no such file"
            )
        with TemporaryDirectory() as folder:
            return Speech2Text(**unpack_checked(model_tag, folder) | kwargs)


def _backbone(config: str | Path) -> str:
    """The backbone that a ``config.yaml`` names; the whole file takes long to parse."""
    with open(config, encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("bpemodel: "):
                return yaml.safe_load(line)["bpemodel"]
    raise ValueError(f"{config} must name its bpemodel, the backbone, but does not")
