"""Gathers a system's decoded folders over all test sets."""

import json
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from espnet_lora_experts.report.decodes import (
    TestSet,
    modes_of,
    read_decode,
    write_trn,
)
from espnet_lora_experts.report.results import Decoded, System

logger = logging.getLogger(__name__)


def read_systems(
    expdir: Path,
    names: Sequence[str],
    test_sets: Sequence[TestSet],
    skip_missing: bool = False,
    trn: bool = True,
) -> dict[str, System]:
    """Read the systems of an experiment folder, in the order of ``names``.

    Args:
        expdir: Holds the systems.
        names: Of the systems.
        test_sets: References; how they are normalised, the hypotheses are.
        skip_missing: Leave out what was not decoded.
        trn: Write sclite's files beside what was decoded.

    Raises:
        ValueError: When one is missing and may not be, or none is there.
    """
    read = {n: read_system(expdir / n, test_sets, skip_missing, trn) for n in names}
    systems = {name: system for name, system in read.items() if system}
    if not systems:
        raise ValueError(
            f"{expdir} must hold decoded systems, but got none; looked for:"
            f" {' '.join(names)}"
        )
    return systems


def read_system(
    folder: Path,
    test_sets: Sequence[TestSet],
    skip_missing: bool = False,
    trn: bool = True,
) -> System | None:
    """Read one system, write its trn files; None when it may be and is skipped.

    Args:
        folder: ``exp/<system>``; its name says which modes it must have.
        test_sets: References.
        skip_missing: Leave out what was not decoded.
        trn: Whether to write them.

    Raises:
        ValueError: When the folder, its system.json or a mode is missing.
    """
    modes = {}
    for mode in modes_of(folder.name):
        wanted = [folder / f"decode_{mode}" / test_set.name for test_set in test_sets]
        absent = [str(path) for path in wanted if not (path / "text").is_file()]
        if not absent:
            modes[mode] = pool(wanted, test_sets, mode, trn)
        elif skip_missing:
            logger.warning("%s: no decode_%s, left out", folder.name, mode)
        else:
            raise ValueError(
                f"system {folder.name} must be decoded {mode}, but got no text in"
                f" {' '.join(absent)}; decode it, leave it out of --systems, or set"
                " --skip_missing true"
            )
    if not modes:
        return None
    return System(modes=modes, **read_size(folder / "system.json"))


def read_cross(folder: Path, test_sets: Sequence[TestSet]) -> dict[str, Decoded]:
    """What each expert made of every language, by expert; {} if it was not decoded."""
    sets = [test_set.name for test_set in test_sets]
    return {
        path.name.removeprefix("decode_cross_"): pool(
            [path / name for name in sets], test_sets, "aware"
        )
        for path in sorted(folder.glob("decode_cross_*"))
        if all((path / name / "text").is_file() for name in sets)
    }


def read_size(path: Path) -> dict[str, int]:
    """Steps, trained and deployed parameters of system.json."""
    keys = ("steps", "trained_params", "deployed_params")
    values = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    lacking = [key for key in keys if key not in values]
    if lacking:
        raise ValueError(
            f"{path} must have {' '.join(keys)}, but got none of {' '.join(lacking)}"
        )
    return {key: int(values[key]) for key in keys}


def pool(
    folders: Sequence[Path], test_sets: Sequence[TestSet], mode: str, trn: bool = True
) -> Decoded:
    """One system's output over all test sets.

    Args:
        folders: ``<system>/decode_<mode>/<set>`` of each set.
        test_sets: References.
        mode: ``aware`` or ``agnostic``.
        trn: Write sclite's files into the folders.
    """
    pairs = list(zip(folders, test_sets, strict=True))
    found = [read_decode(f, t, mode == "agnostic") for f, t in pairs]
    if trn:
        for (folder, test_set), decode in zip(pairs, found, strict=True):
            write_trn(folder, test_set, decode.texts)
    rtfs = [decode.rtf for decode in found if decode.rtf is not None]
    return Decoded(
        langs=joined(t.langs for t in test_sets),
        references=joined(t.texts for t in test_sets),
        hypotheses=joined(decode.texts for decode in found),
        found=joined(d.langs or [] for d in found) if mode == "agnostic" else None,
        rtf=sum(rtfs) / len(rtfs) if rtfs else None,
    )


def joined(lists: Iterable[list[str]]) -> list[str]:
    """The lists one after the other."""
    return [item for items in lists for item in items]
