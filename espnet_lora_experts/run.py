"""Runs ESPnet's commands with our parts in them: the ``--python`` of stock ``asr.sh``.

    ./asr.sh --python "python3 -m espnet_lora_experts.run" --token_type hugging_face \
        --hugging_face_model_name_or_path openai/whisper-tiny --feats_normalize none ...
    python3 -m espnet_lora_experts.run -m espnet2.bin.asr_train --config train.yaml ...

Takes what Python itself takes: ``-m MODULE``, ``-c CODE`` or a script, and its
arguments. Training, decoding, language models, packing and the vocabulary are then
ours, see :data:`OURS`; every other module runs as it is.
"""

from __future__ import annotations

import importlib
import runpy
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from pkgutil import resolve_name

from espnet_lora_experts.bin import cli

_ASR = {"ASRTask": "espnet_lora_experts.plugin.task:LoraExpertsTask"}
_LM = {"LMTask": "espnet_lora_experts.plugin.lm:WhisperLMTask"}
OURS = {
    "espnet2.bin.asr_train": _ASR,
    "espnet2.bin.asr_inference": {
        **_ASR,
        **_LM,
        "Speech2Text": "espnet_lora_experts.plugin.inference:Speech2Text",
    },
    "espnet2.bin.lm_train": _LM,
    "espnet2.bin.lm_calc_perplexity": _LM,
    "espnet2.bin.pack": {"pack": "espnet_lora_experts.plugin.packing:pack"},
    "espnet2.bin.hugging_face_export_vocabulary": {
        "export_vocabulary": "espnet_lora_experts.plugin.vocabulary:export_vocabulary"
    },
}
"""Names in ESPnet's command modules, and what they mean in this process."""


def main(cmd: Sequence[str] | None = None) -> None:
    """Runs a module, code or a script, as Python would.

    Args:
        cmd: As on Python's command line; None takes this process' own.

    Raises:
        ValueError: Nothing to run, or ESPnet is not installed.
    """
    what, *args = (sys.argv[1:] if cmd is None else cmd) or [""]
    if what in ("-m", "-c") and args:
        name, *args = args
        run_module(name, args) if what == "-m" else run_code(name, args)
    elif what in ("-h", "--help"):
        print(__doc__)
    elif Path(what).is_file():
        sys.argv = [what, *args]
        sys.path[0] = str(Path(what).resolve().parent)
        runpy.run_path(what, run_name="__main__")
    else:
        raise ValueError(
            f"give -m MODULE, -c CODE or a script, as Python takes them, but got "
            f"{what!r}"
        )


def run_module(name: str, args: Sequence[str]) -> None:
    """Runs a module as a program; in a command of :data:`OURS` with our parts."""
    _require(name)
    if name not in OURS:
        sys.argv = [name, *args]
        runpy.run_module(name, run_name="__main__", alter_sys=True)
        return
    from espnet_lora_experts.bin.train import unchecked_types  # with all of ESPnet

    with unchecked_types():
        module = importlib.import_module(name)
        for attribute, ours in OURS[name].items():
            setattr(module, attribute, resolve_name(ours))
    sys.argv = [str(module.__file__), *args]
    module.main()


def run_code(code: str, args: Sequence[str]) -> None:
    """Runs code as ``python -c`` does."""
    sys.argv = ["-c", *args]
    exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})


def _require(name: str) -> None:
    top = name.partition(".")[0]
    if find_spec(top) is None:
        fix = "; run local/setup.sh, or give --python of the environment that has it"
        raise ValueError(f"{top} must be installed to run {name}, but is not{fix}")


if __name__ == "__main__":  # not so in the processes that ESPnet starts for its GPUs
    cli.run(main)
