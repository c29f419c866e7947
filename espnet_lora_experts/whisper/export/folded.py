"""A system as one plain Whisper: experts folded into the weights, prompts described."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from transformers import GenerationConfig, WhisperConfig

from espnet_lora_experts.whisper import hub
from espnet_lora_experts.whisper.backbone import Backbone
from espnet_lora_experts.whisper.convert import TIED, StateDict
from espnet_lora_experts.whisper.prompt import NO_TIMESTAMPS, TRANSCRIBE, Prompter
from espnet_lora_experts.whisper.systems import System

TRANSLATE = "<|translate|>"


@dataclass(frozen=True)
class Folded:
    """A plain Whisper.

    Attributes:
        state: Tensors by Hugging Face's names, without the tied ``proj_out``; they may
            be the backbone's own, so they must not be changed.
        config: Its sizes.
        generation: How to decode with it: languages, tokens that must not come.
        prompter: Its tokenizer.
        source: The folder of the backbone, with its tokenizer's files.
    """

    state: StateDict
    config: WhisperConfig
    generation: GenerationConfig
    prompter: Prompter
    source: Path


def fold(
    backbone: Backbone,
    system: System,
    lang: str | None = None,
    suppress_tokens: bool = False,
) -> Folded:
    """Folds a system into its backbone's weights; the backbone stays as it is.

    Args:
        backbone: Whose bank holds the experts.
        system: The gates.
        lang: The language of all speech to come; None: any of the system's.
        suppress_tokens: Leave the backbone's own list of tokens that must not come,
            for a Whisper that was not fine-tuned.

    Raises:
        ValueError: The gates differ by language, and none is given.
    """
    if system.routed and lang is None:
        raise ValueError(
            f"a system with experts of {system.languages} must be told the language to "
            "become one Whisper, but got None; give lang"
        )
    with backbone.bank.folded(partial(system.folding, lang=lang)):
        state = backbone.plain_state()
    del state[TIED]
    source = hub.resolve(backbone.name)
    prompter = Prompter(source)
    own = copy.deepcopy(backbone.hf.generation_config)
    generation = prompted(own, prompter, [lang] if lang else system.languages)
    if not suppress_tokens:
        suppress_specials(generation, prompter)
    return Folded(state, plain(backbone.config), generation, prompter, source)


def plain(config: WhisperConfig) -> WhisperConfig:
    """The configuration without what is the generation's."""
    config = copy.deepcopy(config)
    for name in ("forced_decoder_ids", "suppress_tokens", "begin_suppress_tokens"):
        setattr(config, name, None)
    return config


def prompted(
    generation: GenerationConfig, prompter: Prompter, langs: Sequence[str]
) -> GenerationConfig:
    """The same, for transcripts in some languages; only these can be found.

    Args:
        generation: To change.
        prompter: The vocabulary.
        langs: Codes of the languages; of one that borrows its token the other's counts.
    """
    ids = sorted({prompter.language(code) for code in langs})
    tokens = prompter.tokens(ids)
    tasks = {"transcribe": TRANSCRIBE, "translate": TRANSLATE}
    told = {
        "forced_decoder_ids": None,
        "is_multilingual": True,
        "lang_to_id": dict(zip(tokens, ids, strict=True)),
        "task_to_id": {task: prompter.vocab[token] for task, token in tasks.items()},
        "no_timestamps_token_id": prompter.vocab[NO_TIMESTAMPS],
        "task": "transcribe",
        "return_timestamps": False,
        "language": tokens[0] if len(tokens) == 1 else None,
        "_from_model_config": False,  # else transformers reads no key of Whisper's
    }
    for name, value in told.items():  # its update() takes known names only
        setattr(generation, name, value)
    return generation


def suppress_specials(generation: GenerationConfig, prompter: Prompter) -> None:
    """Forbids what no transcript has: tasks, languages, the prompt's other tokens.

    The list ends with the tokens of "previous text" and "no speech", which transformers
    finds by their place in it. Timestamps stay, for whoever asks for them.
    """
    specials = range(prompter.eot + 1, prompter.vocab[NO_TIMESTAMPS])
    generation.suppress_tokens = [*specials]
    generation.begin_suppress_tokens = []
