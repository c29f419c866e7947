"""Imports point downward only: who may import what, held on the source's AST."""

import ast
import sys
from pathlib import Path

import pytest

import espnet_lora_experts

PACKAGE = espnet_lora_experts.__name__
ROOT = Path(espnet_lora_experts.__file__).parent
ROOMS = ["bin", "experts", "inference", "plugin", "report", "whisper"]
LIBRARIES = {"torch", "peft", "safetensors", "numpy"}  # of experts
ABOVE = {  # rooms and modules that a room must not import
    "experts": {"bin", "inference", "plugin", "report", "run", "whisper"},
    "whisper": {"bin", "inference", "plugin", "report", "run"},
    "report": {"bin", "experts", "inference", "plugin", "run"},
    "plugin": {"bin", "inference", "report", "run"},
    "inference": {"bin", "plugin", "report", "run"},
}


def imported(source, within=PACKAGE):
    """Every module that a source imports, wherever in it, under its full name."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield f"relative import in {within}"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def all_imports():
    """``(room or module, file, imported)`` of the whole package."""
    for path in sorted(ROOT.rglob("*.py")):
        room = path.relative_to(ROOT).parts[0].removesuffix(".py")
        for name in imported(path.read_text(encoding="utf-8"), path.name):
            yield room, path.relative_to(ROOT).as_posix(), name


def breaches(imports):
    """Each import that goes up, or outside of the room it belongs to."""
    for room, file, name in imports:
        top, *rest = name.split(".")
        own = rest[0] if top == PACKAGE and rest else ""
        foreign = top != PACKAGE and top not in sys.stdlib_module_names
        wrong = (
            own in ABOVE.get(room, ())
            or (own == "bin" and room not in ("bin", "run"))
            or (top == "transformers" and room != "whisper")
            or (top == "espnet2" and room != "plugin")
            or (room == "experts" and foreign and top not in LIBRARIES)
            or (room == "report" and own == "whisper" and rest[1] != "languages")
            or (room == "report" and top in {"torch", "peft", "safetensors"})
            or top.startswith("relative import")
        )
        if wrong:
            yield f"{file} imports {name}"


def test_every_room_is_there():
    rooms = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert rooms == set(ROOMS)


def test_imports_point_downward():
    found = list(all_imports())
    assert {room for room, _, _ in found} >= set(ROOMS)
    assert list(breaches(found)) == []


@pytest.mark.parametrize(
    ("room", "source", "wrong"),
    [
        ("experts", "import transformers", True),
        ("experts", "import soundfile", True),
        ("experts", f"from {PACKAGE}.whisper import hub", True),
        ("experts", f"def f():\n    from {PACKAGE} import whisper", True),
        ("experts", "from . import gate", True),
        ("experts", "import torch.nn\nimport json\nfrom peft import LoraConfig", False),
        ("experts", f"from {PACKAGE}.experts.gate import Gate", False),
        ("whisper", "from transformers import WhisperConfig", False),
        ("whisper", "from espnet2.tasks import asr", True),
        ("whisper", f"from {PACKAGE}.plugin import task", True),
        ("whisper", f"import {PACKAGE}.report.tables", True),
        ("whisper", f"from {PACKAGE}.inference import Speech2Text", True),
        ("plugin", "import espnet2.train", False),
        ("plugin", "import transformers", True),
        ("plugin", f"from {PACKAGE}.bin import train", True),
        ("report", f"from {PACKAGE}.whisper import languages", False),
        ("report", f"from {PACKAGE}.whisper.languages import normalize", False),
        ("report", f"from {PACKAGE}.whisper import hub", True),
        ("report", f"from {PACKAGE}.experts import bank", True),
        ("report", "import torch", True),
        ("inference", f"from {PACKAGE}.bin.decode import main", True),
        ("inference", "import espnet2", True),
        ("bin", f"from {PACKAGE}.bin.decode import main", False),
        ("run", f"from {PACKAGE}.bin import cli", False),
        ("run", "import espnet2", True),
        ("bin", "import espnet2", True),
        ("bin", "import transformers", True),
    ],
)
def test_the_rules_tell_right_from_wrong(room, source, wrong):
    imports = [(room, "a.py", name) for name in imported(source)]
    assert bool(list(breaches(imports))) == wrong
