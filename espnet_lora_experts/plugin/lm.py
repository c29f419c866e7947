"""Language models over Whisper's tokens, for shallow fusion in ESPnet's beam search.

ESPnet's language models begin and end a text with the last token of the list, and its
search gives them what the decoder reads, Whisper's prompt included. Here a text begins
and ends with ``<|endoftext|>``, in training and in the search.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from espnet2.asr.decoder.whisper_decoder import BatchScorerInterface
from espnet2.tasks.lm import LMTask
from torch import Tensor

from espnet_lora_experts.whisper import hub
from espnet_lora_experts.whisper.prompt import EOT, PROMPT_LENGTH, Prompter


class WhisperLMTask(LMTask):
    """ESPnet's language-model task, with ``--token_type hugging_face`` for Whisper's.

    The other token types are ESPnet's.
    """

    @classmethod
    def add_task_arguments(cls, parser):
        """ESPnet's options, and the language of the text."""
        super().add_task_arguments(parser)
        [token_type] = [x for x in parser._actions if x.dest == "token_type"]
        token_type.choices = [*token_type.choices, "hugging_face"]
        parser.add_argument(
            "--language",
            default="en",
            help="Language of the text: whether words are separated by spaces",
        )
        return parser

    @classmethod
    def build_preprocess_fn(cls, args, train: bool):
        """Text to ids, as the decoder's text."""
        if args.token_type != "hugging_face" or not args.use_preprocessor:
            return super().build_preprocess_fn(args, train)
        return TextPreprocessor(args.bpemodel, args.language)

    @classmethod
    def build_model(cls, args):
        """The language model; its texts begin and end with ``<|endoftext|>``."""
        model = super().build_model(args)
        if args.token_type == "hugging_face":
            model.sos = model.eos = args.token_list.index(EOT)
        return model


class TextPreprocessor:
    """Ids of a text in Whisper's tokens, without prompt.

    Args:
        backbone: Hub id or folder.
        language: Of the text.
    """

    def __init__(self, backbone: str, language: str):
        self.prompter, self.language = Prompter(hub.resolve(backbone)), language

    def __call__(self, uid: str, data: dict) -> dict[str, np.ndarray]:
        ids = self.prompter.encode(data["text"], self.language)
        return {**data, "text": np.array(ids, dtype=np.int64)}


class TextScorer(torch.nn.Module, BatchScorerInterface):
    """A language model as a scorer of the text behind Whisper's prompt.

    Args:
        lm: A language model of :class:`WhisperLMTask`.
        eot: Id of the end token.
    """

    def __init__(self, lm: BatchScorerInterface, eot: int):
        super().__init__()
        self.lm, self.eot = lm, eot

    def _text(self, ys: Tensor) -> Tensor:
        """Prompt and text, (..., U), as what the language model was trained on."""
        start = ys.new_full((*ys.shape[:-1], 1), self.eot)
        return torch.cat([start, ys[..., PROMPT_LENGTH:]], dim=-1)

    def score(self, y: Tensor, state: Any, x: Tensor):
        """ESPnet's contract for one hypothesis, (U,)."""
        return self.lm.score(self._text(y), state, x)

    def batch_score(self, ys: Tensor, states: list[Any], xs: Tensor):
        """ESPnet's contract for hypotheses of equal length, (Q, U)."""
        return self.lm.batch_score(self._text(ys), states, xs)
