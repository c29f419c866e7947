"""ESPnet's packing (``asr.sh`` stage 14): a zip that needs no other file of a training.

A MoLE runs its experts, which come along. A student decodes without its teachers: it is
packed as what it became, one LoRA of several languages.
"""

from __future__ import annotations

import inspect
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import yaml
from espnet2.main_funcs import pack_funcs
from espnet2.utils.yaml_no_alias_safe_dump import yaml_no_alias_safe_dump

from espnet_lora_experts import atomic
from espnet_lora_experts.experts.adapter import CONFIG
from espnet_lora_experts.experts.store import WEIGHTS
from espnet_lora_experts.plugin.base import WhisperModel
from espnet_lora_experts.plugin.model import LoraDistillModel, LoraExpertModel

ASR = "asr_train_config"


def pack(
    files: dict[str, str | Path],
    yaml_files: dict[str, str | Path],
    outpath: str | Path,
    option: Iterable[str | Path] = (),
) -> None:
    """Packs as ESPnet does, and what the model needs besides its checkpoint.

    Args:
        files: As ESPnet's.
        yaml_files: As ESPnet's; where one is a training of ours, it may be changed.
        outpath: The zip.
        option: More files to pack.

    Raises:
        FileNotFoundError: A file of these, or of an expert, is missing.
    """
    if ASR not in yaml_files:
        _pack(files, yaml_files, outpath, option)
        return
    with _alone(Path(yaml_files[ASR])) as (config, more):
        changed = {**yaml_files, ASR: config}
        _pack(files, changed, outpath, [*option, *more])


def _pack(files, yaml_files, outpath, option) -> None:
    """ESPnet's packing; what it prints names the file that it is to become."""
    said = StringIO()
    with atomic.file(outpath) as temp, redirect_stdout(said):
        pack_funcs.pack(files, yaml_files, temp, option)
    print(said.getvalue().replace(str(temp), str(outpath)), end="")


@contextmanager
def _alone(config: Path) -> Iterator[tuple[Path, list[Path]]]:
    """A configuration that names nothing outside of the zip, and files it names."""
    args = yaml.safe_load(config.read_text(encoding="utf-8"))
    if args.get("model") not in ("lora_mole", "lora_distill"):
        yield config, []
        return
    folder = config.parent / "packed"  # its name is seen in the zip
    shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed
    folder.mkdir()
    try:
        if args["model"] == "lora_mole":
            experts = _copied(args["model_conf"]["experts"], folder / "experts")
            args["model_conf"]["experts"] = {x: str(p) for x, p in experts.items()}
        else:
            experts = {}
            args |= {"model": "lora_expert", "model_conf": as_lora(args["model_conf"])}
        changed = folder / config.name
        changed.write_text(yaml_no_alias_safe_dump(args), encoding="utf-8")
        yield changed, [p for path in experts.values() for p in path.parent.iterdir()]
    finally:
        shutil.rmtree(folder)


def _copied(experts: Mapping[str, str], folder: Path) -> dict[str, Path]:
    """Weights of copies of the experts, named as they will be in the zip.

    ESPnet's unpacking puts the place of a file where its name stands in a YAML.
    """
    copies = {}
    for code, source in experts.items():
        (folder / code).mkdir(parents=True)
        for name in (CONFIG, WEIGHTS):
            shutil.copyfile(Path(source, name), folder / code / name)
        copies[code] = Path(os.path.relpath((folder / code / WEIGHTS).resolve()))
    return copies


def as_lora(conf: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a student's training as those of the LoRA that it became."""
    students = inspect.signature(LoraDistillModel).parameters.values()
    defaults = {x.name: x.default for x in students if x.default is not x.empty}
    known = {
        name
        for model in (LoraExpertModel, WhisperModel)
        for name in inspect.signature(model).parameters
    }
    kept = {name: x for name, x in {**defaults, **conf}.items() if name in known}
    return {**kept, "expert": LoraDistillModel.STUDENT}
