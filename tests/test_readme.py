"""What README.md says exists: its files, its options, its keys."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TEMPLATE = ROOT / "egs2/TEMPLATE/asr1"


def blocks(kind: str) -> list[str]:
    """Code blocks of a language."""
    return re.findall(rf"^```{kind}\n(.*?)^```", README, re.M | re.S)


def test_links_and_named_folders_exist():
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert len(links) >= 4
    for link in links:
        assert (ROOT / link).exists(), link


def commands() -> list[list[str]]:
    """Words of every command of the shell blocks."""
    text = "".join(blocks("sh")).replace("\\\n", " ")
    parts = [part for line in text.splitlines() for part in line.split(" && ")]
    return [words for part in parts if (words := shlex.split(part, comments=True))]


def test_recipe_options_exist():
    known = set(
        re.findall(r"^(\w+)=", (TEMPLATE / "lora_experts.sh").read_text(), re.M)
    )
    runs = [words for words in commands() if words[0] == "./run.sh"]
    found = [re.fullmatch(r"--(\w+)", word) for words in runs for word in words]
    options = {match[1] for match in found if match}
    assert len(options) >= 5
    assert options <= known


def test_scripts_exist():
    named = {w for words in commands() for w in words if w.endswith(".sh")}
    assert {"local/demo.sh", "local/test.sh"} <= named
    recipe = ROOT / "egs2/mini_multilingual/asr1"
    for name in named:
        assert (ROOT / name).is_file() or (recipe / name).is_file(), name


CONFIGURATION = README.partition("## Configuration")[2].partition("\n## ")[0]


@pytest.mark.parametrize(
    "row", re.findall(r"^\| (`.*`) \| (\w[\w ]*) \| ", CONFIGURATION, re.M)
)
def test_configuration_keys_are_in_their_files(row):
    keys = re.findall(r"`(\w+)(?:: \w+)?`", row[0])
    where = row[1]
    names = {"all": "expert", "all LoRA": "expert"}
    where = names.get(where, where)
    path = ROOT / f"conf/{where}.yaml"
    if not where.startswith("decode"):
        path = ROOT / f"conf/train_{where}.yaml"
    config = yaml.safe_load(path.read_text())
    nested = config.get("model_conf", {}) | config.get("sampler_conf", {})
    assert keys
    for key in keys:
        assert key in config or key in nested, f"{key} in {path.name}"
