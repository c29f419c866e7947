"""Reads what earlier stages left in an experiment folder."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espnet_lora_experts.report.collect import pool
from espnet_lora_experts.report.decodes import TestSet
from espnet_lora_experts.report.results import Decoded
from espnet_lora_experts.whisper.languages import MODES


@dataclass(frozen=True)
class Curve:
    """A quantity over a training.

    Attributes:
        train: Optimizer steps and values, means over the steps between two reports.
        valid: The same at the end of each epoch.
    """

    train: tuple[list[int], list[float]]
    valid: tuple[list[int], list[float]]


def read_results(path: Path) -> dict[str, Any]:
    """The results dict of stage 10.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is broken, or something else.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} must exist, but does not; stage 10 (score) writes it"
        )
    found = _read_json(path, "run stage 10 (score) again")
    if not _is_scored(found):
        raise ValueError(
            f"{path} must be the results of stage 10 (score), with meta and scored"
            " systems, but is something else; run stage 10 again"
        )
    return found


def _read_json(path: Path, fix: str) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # of JSON or of UTF-8; nested lists
        raise ValueError(
            f"{path} must be whole JSON, but got: {error}; {fix}"
        ) from error


def _is_scored(found: Any) -> bool:
    if not isinstance(found, dict) or not isinstance(found.get("meta"), dict):
        return False
    systems = found.get("systems")
    return (
        isinstance(systems, dict)
        and len(systems) > 0
        and all(isinstance(row, dict) and {*row} & {*MODES} for row in systems.values())
    )


def read_decoded(
    expdir: Path, scored: Mapping[str, Any], test_sets: Sequence[TestSet]
) -> dict[tuple[str, str], Decoded]:
    """Texts by system and mode of what was scored, as far as they are still there.

    Raises:
        ValueError: Some are there, but not of the utterances of the test sets.
    """
    found = {}
    for name, row in scored["systems"].items():
        for mode in MODES:
            folder = expdir / name / f"decode_{mode}"
            wanted = [folder / test_set.name for test_set in test_sets]
            there = wanted and all((x / "text").is_file() for x in wanted)
            if mode in row and there:
                found[name, mode] = pool(wanted, test_sets, mode, trn=False)
    return found


def read_curves(expdir: Path, names: Sequence[str], tag: str) -> dict[str, Curve]:
    """A quantity over the trainings that wrote TensorBoard's files.

    Those hold all epochs of a training that was resumed, which its log does not.

    Args:
        expdir: Holds ``<system>/tensorboard/{train,valid}``.
        names: Systems.
        tag: ESPnet's name of the quantity, for example ``loss_asr``.
    """
    curves = {}
    for name in names:
        folder = expdir / name / "tensorboard"
        train, epochs = (read_scalars(folder / "train", x) for x in (tag, "iter_epoch"))
        valid = read_scalars(folder / "valid", tag)
        if train and valid:
            ends = {step for step, _ in epochs}
            between = [point for point in train if point[0] not in ends]
            curves[name] = Curve(_columns(between or train), _columns(valid))
    return curves


def _columns(points: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [step for step, _ in points], [value for _, value in points]


def read_scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    """Steps and values of a folder of TensorBoard's files; [] where it lacks them."""
    if not folder.is_dir():
        return []
    from tensorboard.backend.event_processing import event_accumulator

    everything = {event_accumulator.SCALARS: 0}
    events = event_accumulator.EventAccumulator(str(folder), everything).Reload()
    if tag not in events.Tags()[event_accumulator.SCALARS]:
        return []
    return [(event.step, event.value) for event in events.Scalars(tag)]


def read_sweep(expdir: Path) -> dict[int, dict[str, Any]]:
    """Results of a sweep over ``merged_layers``, by the number of merged layers.

    Args:
        expdir: Where ``sweep.sh`` put ``sweeps/<name>/results.json`` and the variants.

    Returns:
        Of the sweep that tried the most; {} if none tried two.
    """
    best: dict[int, dict[str, Any]] = {}
    for path in sorted((expdir / "sweeps").glob("*/results.json")):
        tried = {}
        for name, row in read_results(path)["systems"].items():
            layers = _merged_layers(expdir / name / "system.json")
            if layers is not None:
                tried.setdefault(layers, row)
        if len(tried) > max(len(best), 1):
            best = dict(sorted(tried.items()))
    return best


def _merged_layers(path: Path) -> int | None:
    if not path.is_file():
        return None
    what = _read_json(path, "train the system again")
    return what.get("mole", {}).get("merged_layers")
