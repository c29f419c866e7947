"""What a training left behind about itself, for model cards: options and data."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from espnet_lora_experts.whisper.audio import SAMPLE_RATE
from espnet_lora_experts.whisper.yaml_files import parse_yaml

CONFIG = "config.yaml"
VOCABULARY = re.compile(r"^token_list:\n(?:(?!\w).*\n)*", re.MULTILINE)
OPTIONS = ("optim", "optim_conf", "scheduler", "scheduler_conf", "batch_bins", "seed")
DATA = "train_data_path_and_name_and_type"


def read_config(folder: Path) -> dict[str, Any]:
    """The options that ESPnet wrote beside the checkpoints; {} without them.

    The vocabulary, which is nearly all of the file, is left out.
    """
    path = folder / CONFIG
    if not path.is_file():
        return {}
    try:
        text = VOCABULARY.sub("", path.read_text(encoding="utf-8"))
        return parse_yaml(text)
    except ValueError as error:
        raise ValueError(
            f"{path} must be ESPnet's options, but got: {error}"
        ) from error


def options(folder: Path) -> dict[str, str]:
    """The options that tell how a system was trained, in words.

    Example:
        >>> options(Path("a folder without a training"))
        {}
    """
    given = read_config(folder)
    return {
        name: _words(given[name]) for name in OPTIONS if given.get(name) is not None
    }


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_words(item)}" for key, item in value.items())
    return f"{value:,}" if type(value) is int else str(value)


def training_data(folder: Path) -> tuple[list[str], dict[str, tuple[int, float]]]:
    """Training sets, and of each language the number of utterances and the hours.

    Args:
        folder: Of the training; its data may lie beside any folder above it.

    Returns:
        Names of the sets; ``{language: (utterances, hours)}``, {} where the data is
        gone, and hours of 0 where nothing says how long they are.
    """
    paths = [Path(path) for path, name, _ in read_config(folder).get(DATA, ())]
    sets = list(dict.fromkeys(path.parent.name for path in paths))
    samples: dict[str, list[int]] = defaultdict(list)
    for place in dict.fromkeys(path.parent for path in paths):
        found = _near(folder, place / "utt2lang")
        if found is not None:
            lengths = dict(_rows(found.with_name("utt2num_samples")))
            for utt, lang in _rows(found):
                samples[lang].append(int(lengths.get(utt, 0)))
    return sets, {
        lang: (len(each), sum(each) / SAMPLE_RATE / 3600)
        for lang, each in samples.items()
    }


def _near(folder: Path, path: Path) -> Path | None:
    """A path as ESPnet's options have it: relative to where the training ran."""
    for above in (Path(), *folder.resolve().parents):
        if (above / path).is_file():
            return above / path
    return None


def _rows(path: Path) -> Iterator[tuple[str, str]]:
    """``key value`` lines of a Kaldi table; none where it is missing."""
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(" ")
            yield key, value.strip()
