"""What is known of an artefact, as a page or as JSON."""

import json
import subprocess
import sys

import pytest

from espnet_lora_experts.bin import inspect
from espnet_lora_experts.whisper.backbone import Backbone
from espnet_lora_experts.whisper.folder import save_system
from espnet_lora_experts.whisper.systems import Experts


@pytest.fixture
def mono(trio, tmp_path):
    system = Experts(["es", "ru", "ja"])
    save_system(tmp_path / "mono", trio, system, {"steps": 1234567})
    return tmp_path / "mono"


def test_a_page_has_facts_and_a_table_of_experts(mono, trio, capsys):
    inspect.main([str(mono)])
    facts, experts = capsys.readouterr().out.rstrip("\n").split("\n\n")
    said = dict(line.split(maxsplit=1) for line in facts.splitlines())
    assert said["languages"] == "es ru ja" and said["steps"] == "1,234,567"
    assert said["backbone_sha256"] == trio.sha256 and "size" not in said
    title, head, *rows = experts.splitlines()
    assert title == "experts" and head.split()[:3] == ["name", "r", "lora_alpha"]
    assert [row.split()[0] for row in rows] == ["es", "ru", "ja"]
    assert {row.index("3 ") for row in rows} == {head.index("r ")}


def test_json_is_all_that_is_known(mono, capsys):
    inspect.main([str(mono), "--json"])
    said = json.loads(capsys.readouterr().out)
    assert said["path"] == str(mono) and said["steps"] == 1234567
    assert {expert["name"] for expert in said["experts"]} == {"es", "ru", "ja"}


def test_a_system_is_inspected_without_torch(mono):
    program = (
        "import sys; from espnet_lora_experts.bin.inspect import main\n"
        f"main([{str(mono)!r}]); print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], text=True, capture_output=True, check=True
    )
    imported = set(done.stderr.split())
    assert "safetensors" in imported
    assert not imported & {"torch", "transformers", "peft"}


def test_the_hash_is_the_one_that_systems_name(whisper_folder, capsys):
    inspect.main([str(whisper_folder), "--hash", "--json"])
    said = json.loads(capsys.readouterr().out)
    assert said["sha256"] == Backbone.from_pretrained(str(whisper_folder)).sha256


def test_only_a_whisper_has_a_hash_to_compute(mono):
    with pytest.raises(
        ValueError, match="--hash must be of a Whisper, but .* a system"
    ):
        inspect.main([str(mono), "--hash"])
