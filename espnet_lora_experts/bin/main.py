"""The console script ``espnet-lora-experts``: one name for all command lines.

A command is a module of this room, imported only when it is asked for.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial

from espnet_lora_experts import __version__, packaged
from espnet_lora_experts.bin import cli

PROG = "espnet-lora-experts"
ESPNET_202511 = (
    "espnet==202511 omniio==0.1.2 torchaudio==2.11.0 ci_sdr==0.0.2 fast-bss-eval==0.1.3"
)
"""As in setup.py, which a wheel does not carry."""
EXAMPLES = f"""examples:
  {PROG} recipe my_recipe                  # then cd my_recipe && ./run.sh
  {PROG} inspect my_recipe/exp             # what was trained there
  {PROG} transcribe *.wav --model my_recipe/exp/kd
  {PROG} transcribe talk.ogg --model my_recipe/exp/kd --lang es --format srt
  {PROG} fuse --input my_recipe/exp/mono --output my_recipe/exp/merged
  {PROG} COMMAND --help                    # the options of a command
"""


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        module: Its module in this room, with ``main(cmd=None)``.
        about: One line for the help.
        config: YAML of ``conf/`` that it takes where no ``--config`` is given.
        extra: Extra of the package whose libraries it needs.
    """

    module: str
    about: str
    config: str = ""
    extra: str = ""


TABLE = {
    "train": {
        "recipe": Command("recipe", "copy a recipe that trains and scores it all"),
        "train-expert": Command(
            "train", "a LoRA for each language", "train_expert.yaml", "espnet"
        ),
        "train-mole": Command(
            "train", "fuse experts: LoRA MoLE", "train_mole.yaml", "espnet"
        ),
        "distill": Command(
            "train", "distil experts into one LoRA", "train_distill.yaml", "espnet"
        ),
        "fuse": Command("fuse", "merge experts into one LoRA without training"),
        "combine": Command("combine", "put experts of several trainings together"),
    },
    "use": {
        "transcribe": Command("transcribe", "speech files to txt, srt, vtt or json"),
        "app": Command("app", "transcribe in the browser", extra="demo"),
        "export": Command(
            "export", "to transformers, CTranslate2 or whisper.cpp", extra="export"
        ),
        "push": Command("push", "a system to the Hugging Face hub"),
        "inspect": Command("inspect", "what a folder or a file is: the model's facts"),
    },
    "evaluate": {
        "decode": Command("decode", "test sets with every system"),
        "score": Command("score", "WER, CER and LID of what was decoded"),
        "report": Command("report", "the results as a page of charts"),
    },
}
COMMANDS = {name: command for part in TABLE.values() for name, command in part.items()}


def get_parser() -> argparse.ArgumentParser:
    """Options before any command, and the help that lists the commands."""
    lines = []
    for part, commands in TABLE.items():
        lines += [f"{part}:", *(f"  {n:14}{c.about}" for n, c in commands.items()), ""]
    parser = argparse.ArgumentParser(
        prog=PROG,
        usage=f"{PROG} [--help] [--version] COMMAND [options]",
        description="LoRA language experts for multilingual Whisper.",
        epilog="\n".join([*lines, EXAMPLES]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"{PROG} {__version__}")
    return parser


def main(cmd: Sequence[str] | None = None) -> None:
    """Runs a command; its errors of input end with their message and status 1."""
    words = list(sys.argv[1:] if cmd is None else cmd)
    name, *options = words or ["--help"]
    if name.startswith("-"):
        get_parser().parse_args(words or ["--help"])
    elif name not in COMMANDS:
        print(f"error: {_unknown(name)}", file=sys.stderr)
        sys.exit(2)
    else:
        cli.run(partial(_run, name, options))


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name.replace("_", "-"), COMMANDS, 1)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(COMMANDS)}"
    return f"the command must be one of {PROG} --help, but got {name!r}; {hint}"


def _run(name: str, options: list[str]) -> None:
    command = COMMANDS[name]
    if command.config:  # of several --config the last one counts
        options = ["--config", str(packaged.config(command.config)), *options]
    sys.argv = [f"{PROG} {name}", *options]  # where parsers find their program's name
    try:
        with redirect_stdout(sys.stderr):  # ESPnet prints what it does not find
            module = importlib.import_module(f"{__package__}.{command.module}")
        module.main(options)
        sys.stdout.flush()  # while a closed pipe is still caught
    except ModuleNotFoundError as error:
        if not command.extra or (error.name or "").startswith(__package__):
            raise
        raise ValueError(_missing(name, command.extra, error.name)) from error
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # who read our output, such as head, has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


def _missing(name: str, extra: str, module: str | None) -> str:
    distribution = __package__.partition(".")[0]
    hint = f"pip install '{distribution}[{extra}]'"
    if extra == "espnet" and sys.version_info < (3, 12):
        hint += f" and pip install --no-deps {ESPNET_202511}"
    return f"{name} needs the package {module}, but it is not installed: {hint}"


if __name__ == "__main__":
    main()
