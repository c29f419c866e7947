"""Experts trained one by one are the same system as experts trained side by side."""

import json

import pytest
import torch

from espnet_lora_experts.bin import combine
from espnet_lora_experts.whisper.backbone import Backbone
from espnet_lora_experts.whisper.folder import load_system, save_system
from espnet_lora_experts.whisper.systems import Experts, Single, encode


@pytest.fixture
def save(trio, tmp_path):
    """Saves an expert, or several, as a training of its own would."""

    def save(*names, backbone=trio, folder=None):
        folder = tmp_path / (folder or f"mono_{names[0]}")
        facts = {"steps": 10, "trained_params": 5, "deployed_params": 105}
        save_system(folder, backbone, Experts(list(names)), facts)
        return folder

    return save


def run(inputs, output, *options):
    folders = " ".join(map(str, inputs))
    combine.main(["--inputs", folders, "--output", str(output), *options])
    return json.loads((output / "system.json").read_text())


def test_combined_experts_compute_as_before(trio, save, tmp_path, mel, langs):
    inputs = [save("es"), save("ru", "ja")]
    run(inputs, tmp_path / "exp/mono")
    loaded, system, what = load_system(tmp_path / "exp/mono")
    assert isinstance(system, Experts)
    assert what["languages"] == ["es", "ru", "ja"]
    with torch.no_grad():
        expected = encode(trio, Experts(["es", "ru", "ja"]), *mel, langs)
        got = encode(loaded, system, *mel, langs)
    torch.testing.assert_close(got.hidden_BPD, expected.hidden_BPD)


def test_counts_add_up(save, tmp_path):
    what = run([save("es"), save("ru"), save("ja")], tmp_path / "mono")
    assert (what["steps"], what["trained_params"]) == (30, 15)
    assert what["deployed_params"] == 100 + 15


def test_side_by_side_training_stays_as_it_is(save, tmp_path):
    folder = save("es", "ru", folder="mono")
    before = (folder / "system.json").read_text()
    run([folder], folder, "--two_pass", str(tmp_path / "two_pass"))
    assert (folder / "system.json").read_text() == before
    what = json.loads((tmp_path / "two_pass/system.json").read_text())
    assert (what["type"], what["languages"]) == ("two_pass", ["es", "ru"])
    assert what["steps"] == 10


def test_two_experts_of_one_language_are_an_error(save, tmp_path):
    inputs = [save("es"), save("es", "ru", folder="other")]
    with pytest.raises(ValueError, match=r"other and .*mono_es.* are both of 'es'"):
        run(inputs, tmp_path / "mono")
    assert not (tmp_path / "mono").exists()


def test_experts_of_two_backbones_are_an_error(
    save, make_whisper, add_random, tmp_path
):
    other = Backbone(make_whisper(seed=2), name="other")
    add_random(other.bank, ["ru"])
    inputs = [save("es"), save("ru", backbone=other)]
    with pytest.raises(ValueError, match="experts must be of one backbone, but got"):
        run(inputs, tmp_path / "mono")


def test_a_folder_without_a_system_is_named(save, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing must be a system's folder"):
        run([save("es"), tmp_path / "nothing"], tmp_path / "mono")


def test_a_pooled_lora_is_no_expert_of_a_language(trio, tmp_path, save):
    pooled = tmp_path / "multi"
    save_system(pooled, trio, Single(["es", "ru"], "ja"))
    with pytest.raises(ValueError, match=r"multi must hold experts .* a single"):
        run([save("es"), pooled], tmp_path / "mono")


def test_the_system_has_a_card_and_the_experts_keep_theirs(save, tmp_path):
    inputs = [save("es"), save("ru")]
    cards = [card for folder in inputs for card in sorted(folder.rglob("README.md"))]
    before = {card: card.read_text(encoding="utf-8") for card in cards}
    assert len(before) == 4 and all("| steps | 10 |" in x for x in before.values())
    run(inputs, tmp_path / "mono")
    card = (tmp_path / "mono/README.md").read_text(encoding="utf-8")
    assert "Speech2Text.from_pretrained" in card and "| steps | 20 |" in card
    assert "- es" in card and "- ru" in card
    assert {path: path.read_text(encoding="utf-8") for path in before} == before
