"""A system comes back from its folder as it went, on its own backbone only."""

import os

import pytest
import torch

from espnet_lora_experts.whisper.backbone import Backbone
from espnet_lora_experts.whisper.description import (
    DESCRIPTION,
    read_description,
    write_json,
)
from espnet_lora_experts.whisper.folder import (
    MOLE_WEIGHTS,
    load_system,
    save_system,
)
from espnet_lora_experts.whisper.systems import (
    Experts,
    Single,
    System,
    decode,
    encode,
)

LANGUAGES = ["es", "ru", "ja"]
IDS = torch.arange(12).reshape(4, 3)


@pytest.fixture
def make(trio, make_mole):
    def build(name):
        if name == "mole":
            return trio, make_mole(1, "delta", "attentive")
        if name == "full":
            for expert in list(trio.bank.names):
                trio.bank.drop(expert)
            bare = Backbone.from_pretrained(trio.name)
            for parameter in bare.hf.model.decoder.parameters():
                parameter.data.mul_(1.1)
            return bare, System(LANGUAGES)
        systems = {"experts": Experts(LANGUAGES), "single": Single(LANGUAGES, "ru")}
        return trio, systems[name]

    return build


@torch.no_grad()
def logits(backbone, system, mel, route=None):
    encoded = encode(backbone, system, *mel, route)
    return backbone.logits(decode(backbone, system, encoded, IDS))


@pytest.mark.parametrize("given", [False, True], ids=["by name", "given"])
@pytest.mark.parametrize("name", ["single", "experts", "mole", "full"])
def test_loaded_is_saved(tmp_path, make, make_whisper, mel, langs, name, given):
    backbone, system = make(name)
    save_system(tmp_path / "system", backbone, system, {"steps": 7})
    expected = logits(backbone, system, mel, langs)
    other = Backbone(make_whisper(), name=backbone.name) if given else None
    loaded, again, what = load_system(tmp_path / "system", other)
    assert torch.equal(logits(loaded, again, mel, langs), expected)
    assert type(again) is type(system)
    assert again.languages == LANGUAGES
    assert not again.training
    assert (what["type"], what["steps"]) == (name, 7)
    assert (loaded is other) == (given and name != "full")
    if name != "experts":
        assert torch.equal(logits(loaded, again, mel), logits(backbone, system, mel))


def test_mole_comes_back_with_its_options(tmp_path, make, trio):
    _, mole = make("mole")
    save_system(tmp_path, trio, mole)
    _, again, _ = load_system(tmp_path, trio)
    assert again.merged_layers == 1
    assert again.fusion.combination == "delta"
    assert again.router.pooling == "attentive"
    assert mole.state_dict().keys() == again.state_dict().keys()
    for key, tensor in mole.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[key])


def test_full_fine_tuning_is_a_whole_whisper(tmp_path, make, whisper_folder):
    backbone, system = make("full")
    save_system(tmp_path, backbone, system)
    assert load_system(tmp_path)[0].sha256 != backbone.sha256  # of before training
    texts = {p.name for p in whisper_folder.iterdir() if p.suffix == ".json"}
    written = {p.name for p in (tmp_path / "backbone").iterdir()}
    assert texts | {"model.safetensors"} <= written


def test_other_backbone_is_an_error(tmp_path, make, make_whisper):
    backbone, system = make("experts")
    other = tmp_path / "other"
    save_system(tmp_path / "system", backbone, system)
    what = read_description(tmp_path / "system")
    what["backbone"]["sha256"] = "b" * 64
    write_json(tmp_path / "system" / DESCRIPTION, what)
    for candidate in (None, Backbone(make_whisper(2), name=str(other))):
        with pytest.raises(ValueError, match=f"the backbone {'b' * 12} .* found is"):
            load_system(tmp_path / "system", candidate)


def test_given_backbone_that_is_another_is_not_used(tmp_path, make, make_whisper):
    backbone, system = make("single")
    save_system(tmp_path, backbone, system)
    other = Backbone(make_whisper(2))
    loaded, _, _ = load_system(tmp_path, other)
    assert loaded is not other
    assert loaded.sha256 == backbone.sha256
    assert other.bank.names == []


def test_experts_of_the_same_name_are_replaced(tmp_path, make, trio, mel, langs):
    _, system = make("experts")
    save_system(tmp_path, trio, system)
    expected = logits(trio, system, mel, langs)
    for _, parameter in trio.bank.parameters_of("ru"):
        parameter.data.zero_()
    load_system(tmp_path, trio)
    assert sorted(trio.bank.names) == sorted(LANGUAGES)
    assert torch.equal(logits(trio, system, mel, langs), expected)


def test_missing_parts_are_named(tmp_path, make):
    with pytest.raises(FileNotFoundError, match="has no system.json"):
        load_system(tmp_path)
    backbone, system = make("mole")
    save_system(tmp_path, backbone, system)
    (tmp_path / "experts" / "ru" / "adapter_config.json").unlink()
    with pytest.raises(FileNotFoundError, match="experts/ru must be a PEFT adapter"):
        load_system(tmp_path)


def test_other_files_of_the_folder_stay(tmp_path, make):
    (tmp_path / "train.log").write_text("log")
    for name in ("experts", "single"):
        save_system(tmp_path, *make(name))
    assert (tmp_path / "train.log").read_text() == "log"
    assert read_description(tmp_path)["experts"] == {"ru": "experts/ru"}
    assert not [p.name for p in tmp_path.rglob(".*")]


def cut(path):
    path.write_bytes(path.read_bytes()[:-9])


@pytest.mark.parametrize(
    ("name", "file", "message"),
    [
        ("mole", MOLE_WEIGHTS, "must be a whole safetensors file.*train, copy or"),
        ("mole", DESCRIPTION, "must be whole JSON.*train, copy or"),
        ("full", "backbone/model.safetensors", "must be a whole safetensors.*train,"),
    ],
)
def test_broken_file_is_named_with_the_fix(tmp_path, make, name, file, message):
    save_system(tmp_path, *make(name))
    cut(tmp_path / file)
    with pytest.raises(ValueError, match=f"^{tmp_path / file} {message}"):
        load_system(tmp_path)


def test_weights_of_another_mole_are_named(tmp_path, make, make_mole):
    backbone, mole = make("mole")
    save_system(tmp_path / "a", backbone, mole)
    save_system(tmp_path / "b", backbone, make_mole(2, "delta"))
    os.replace(tmp_path / "b" / MOLE_WEIGHTS, tmp_path / "a" / MOLE_WEIGHTS)
    with pytest.raises(ValueError, match=f"a/{MOLE_WEIGHTS} must fit the languages"):
        load_system(tmp_path / "a", backbone)


@pytest.mark.parametrize("name", ["mole", "full"])
def test_the_umask_says_who_may_read_the_files(tmp_path, make, name):
    backbone, system = make(name)
    before = os.umask(0o027)
    try:
        save_system(tmp_path / "system", backbone, system)
    finally:
        os.umask(before)
    paths = [path for path in (tmp_path / "system").rglob("*") if path.is_file()]
    assert {"mole": MOLE_WEIGHTS, "full": "model.safetensors"}[name] in {
        path.name for path in paths
    }
    assert {path.stat().st_mode & 0o777 for path in paths} == {0o640}


def described(folder, backbone, kind):
    """As the recipe writes Whisper as it came, and two passes."""
    what = {"name": backbone.name, "sha256": backbone.sha256}
    what = {"type": kind, "languages": LANGUAGES, "backbone": what}
    write_json(folder / DESCRIPTION, what)


def test_vanilla_is_a_system_without_experts(tmp_path, backbone):
    described(tmp_path, backbone, "vanilla")
    loaded, system, _ = load_system(tmp_path, backbone)
    assert loaded is backbone
    assert type(system) is System and system.languages == LANGUAGES


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            "two_pass",
            r"two_pass is two of them; load the folder .*\.two_pass\(finder\)",
        ),
        ("mixture", "system.json must be of .*'single'.*, but got 'mixture'; was it"),
    ],
)
def test_type_that_is_no_system_is_named(tmp_path, backbone, kind, message):
    described(tmp_path, backbone, kind)
    with pytest.raises(ValueError, match=message):
        load_system(tmp_path, backbone)
