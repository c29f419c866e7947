"""What may be an expert: the checks on a PEFT adapter's configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from peft import LoraConfig
from peft.tuners.tuners_utils import check_target_module_exists
from torch import Tensor, nn

from espnet_lora_experts.experts.bank import TARGETS, ExpertBank
from espnet_lora_experts.experts.layer import ExpertLinear

CONFIG = "adapter_config.json"
UNSUPPORTED = {
    "use_dora": "DoRA",
    "modules_to_save": "modules_to_save",
    "lora_bias": "a bias in B",
    "layer_replication": "layer_replication",
    "trainable_token_indices": "trainable_token_indices",
    "megatron_config": "Megatron layers",
    "target_parameters": "target_parameters",
    "alora_invocation_tokens": "activated LoRA",
    "arrow_config": "Arrow",
    "use_qalora": "QALoRA",
    "use_bdlora": "BD-LoRA",
    "kasa_config": "KaSA",
    "monteclora_config": "MonteCLoRA",
    "velora_config": "VeLoRA",
}
INSTEAD = "merge it into its backbone or train it again without"
MOST, LONGEST, MOST_REPEATS = 2**20, 500, 3
"""Of ranks and alphas; of letters and repetitions in names of layers."""
REPEATED_GROUP = re.compile(r"\)[*+{]")
KEEP_BASE = (True, False, "gaussian", "eva", "orthogonal")
"""Values of ``init_lora_weights`` that leave the backbone's weights as they are."""


def read_config(folder: Path) -> LoraConfig:
    """The configuration of a plain LoRA, ready to be added to a bank.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is broken, of another method, or of more than a plain LoRA.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} must be a PEFT adapter folder, but has no {CONFIG}"
        )
    try:
        config = LoraConfig.from_pretrained(str(folder))
    # ValueError: JSON; the others: values of another type than PEFT expects.
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} must be PEFT's LoRA config: {error}") from error
    if not isinstance(config, LoraConfig):
        raise ValueError(f"{path} must be of a LoRA, but got {config.peft_type}")
    for field, what in UNSUPPORTED.items():
        if getattr(config, field, None):
            raise ValueError(
                f"{folder} must be a plain LoRA, but uses {what} ({field}); {INSTEAD}"
            )
    if config.bias != "none":
        raise ValueError(
            f"{folder} must have bias: none, but got {config.bias!r}; {INSTEAD}"
        )
    if config.init_lora_weights not in KEEP_BASE:
        raise ValueError(
            f"{folder} must run on an unchanged backbone, but its init_lora_weights: "
            f"{config.init_lora_weights} changed it; convert it with PEFT's "
            "path_initial_model_for_weight_conversion"
        )
    _check_names(config, path)
    _check_numbers(config, path)
    config.inference_mode = False
    config.init_lora_weights = True
    return config


def _check_names(config: LoraConfig, path: Path) -> None:
    """What PEFT does not check: expressions that never end.

    PEFT searches the layers' names for targets and patterns. A repeated group can take
    it exponentially long, a few repeated letters cannot.
    """
    texts: list[object] = []
    for patterns in (config.rank_pattern, config.alpha_pattern):
        if not isinstance(patterns, dict):
            raise ValueError(f"{path}: patterns must be objects, but got {patterns!r}")
        texts += patterns
    for found in (config.target_modules, config.exclude_modules):
        if found is None:
            continue
        names = [found] if isinstance(found, str) else found
        if not isinstance(names, list | set):  # PEFT makes sets of lists
            raise ValueError(f"{path}: layers must be names, but got {found!r:.99}")
        texts += names
    for text in texts:
        _check_pattern(text, path)


def _check_numbers(config: LoraConfig, path: Path) -> None:
    """What PEFT does not check: numbers that are none."""
    ranks = [config.r, *(config.rank_pattern or {}).values()]
    alphas = [config.lora_alpha, *(config.alpha_pattern or {}).values()]
    if any(type(x) is not int or not 0 < x < MOST for x in ranks):
        raise ValueError(f"{path}: ranks must be whole numbers, but got {ranks!r:.99}")
    if any(type(x) not in (int, float) or not abs(x) < MOST for x in alphas):
        raise ValueError(f"{path}: alphas must be numbers, but got {alphas!r:.99}")
    dropout = config.lora_dropout
    if type(dropout) not in (int, float) or not 0 <= dropout <= 1:
        raise ValueError(f"{path}: lora_dropout must be 0 to 1, got {dropout!r:.99}")


def _check_pattern(text: object, path: Path) -> None:
    what = f"{path}: names of layers must be"
    if not isinstance(text, str) or len(text) > LONGEST:
        raise ValueError(f"{what} text of {LONGEST} letters at most, got {text!r:.99}")
    if REPEATED_GROUP.search(text) or len(re.findall("[*+{]", text)) > MOST_REPEATS:
        raise ValueError(
            f"{what} expressions with up to {MOST_REPEATS} repetitions, none of a "
            f"group, but got {text!r}; list the layers"
        )
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"{what} expressions, but got {text!r}: {error}") from error


def check_ranks(config: LoraConfig, tensors: Mapping[str, Tensor], folder) -> None:
    """Raises where a configuration asks for more memory than the weights fill."""
    found = {x.shape[0] for key, x in tensors.items() if ".lora_A" in key and x.dim()}
    named = {config.r, *(config.rank_pattern or {}).values()}
    if max(named) > max(found, default=0):
        raise ValueError(
            f"{folder} must have weights of {CONFIG}'s rank {max(named)}, but has "
            f"those of {sorted(found) or 'none'}"
        )


def check_targets(bank: ExpertBank, config: LoraConfig, folder) -> None:
    """Raises where a target runs without the bank's gate.

    Those are what is no linear layer, and the output layer, whose weight is the token
    embedding's.
    """
    output = getattr(bank.model, "get_output_embeddings", lambda: None)()
    inside = tuple(f"{key}." for key in bank.layers)
    wrong = {
        key
        for key, module in bank.model.named_modules()
        if (module is output or not isinstance(module, nn.Linear | ExpertLinear))
        and not key.startswith(inside)
        and check_target_module_exists(config, key)
    }
    if wrong:
        raise ValueError(
            f"{folder} must target linear layers that run under the bank's gate, but "
            f"got {some(wrong)}; train it again with target_modules such as "
            f"{', '.join(TARGETS)}"
        )


def some(keys: set[str]) -> str:
    """The first keys, and how many more there are."""
    listed = ", ".join(sorted(keys)[:3]) or "nothing"
    return f"{listed} and {len(keys) - 3} more" if len(keys) > 3 else listed
