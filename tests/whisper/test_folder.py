"""A system comes back from its folder as it went, on its own backbone only."""

import json
import os

import huggingface_hub
import pytest
import torch
from peft import LoraConfig, get_peft_model

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


def test_systems_with_experts_of_one_name_leave_each_other(
    tmp_path, make, trio, mel, langs
):
    """In one Whisper's memory, each with its own experts; as it was saved."""
    _, system = make("experts")
    save_system(tmp_path, trio, system)
    saved = logits(trio, system, mel, langs)
    for _, parameter in trio.bank.parameters_of("ru"):
        parameter.data.zero_()
    changed = logits(trio, system, mel, langs)
    twin, loaded, _ = load_system(tmp_path, trio)
    assert sorted(twin.bank.names) == sorted(LANGUAGES)
    assert torch.equal(logits(twin, loaded, mel, langs), saved)
    assert torch.equal(logits(trio, system, mel, langs), changed)
    assert not torch.equal(saved, changed)
    tokens = [x.hf.model.decoder.embed_tokens.weight for x in (trio, twin)]
    assert tokens[0].data_ptr() == tokens[1].data_ptr()
    with twin.bank.folded(lambda key: loaded.folding(key, "es")):  # of the twin only
        assert torch.equal(logits(trio, system, mel, langs), changed)


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


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("single", {"experts": {}}),
        ("single", {"experts": {"ru": "experts/ru", "es": "experts/ru"}}),
        ("mole", {"mole": {"merged_layers": 1, "new_option": 2}}),
        ("mole", {"mole": None}),
    ],
)
def test_description_that_does_not_fit_its_type_is_named(tmp_path, make, name, changes):
    save_system(tmp_path, *make(name))
    write_json(tmp_path / DESCRIPTION, read_description(tmp_path) | changes)
    with pytest.raises(
        ValueError, match=f"system.json must say all that .* {name} nee"
    ):
        load_system(tmp_path)


@pytest.fixture
def adapter(trio, make_whisper, tmp_path):
    """What plain PEFT saves: no hash, no expert's name, a card of PEFT's own."""
    config = LoraConfig(r=2, target_modules=["fc1"], init_lora_weights=False)
    plain = get_peft_model(make_whisper(), config).eval()
    plain.peft_config["default"].base_model_name_or_path = trio.name
    plain.save_pretrained(tmp_path / "adapter")
    assert "library_name: peft" in (tmp_path / "adapter" / "README.md").read_text()
    return tmp_path / "adapter", plain


def test_an_adapter_of_plain_peft_is_a_system(adapter, mel):
    folder, plain = adapter
    peft = Backbone(plain.get_base_model())  # its layers are PEFT's, without a gate
    backbone, system, what = load_system(folder, languages=["es"])
    assert (system.expert, system.languages) == ("es", ["es"])
    assert what["backbone"]["sha256"] == backbone.sha256
    torch.testing.assert_close(
        logits(backbone, system, mel), logits(peft, System(["es"]), mel)
    )


def test_an_adapter_in_many_languages_has_a_name_of_its_own(adapter):
    _, system, _ = load_system(adapter[0], languages=["es", "ru"])
    assert (system.expert, system.languages) == ("adapter", ["es", "ru"])


def test_the_card_of_an_adapter_names_its_languages(adapter):
    folder, _ = adapter
    with pytest.raises(
        ValueError, match=r"adapter must name its languages .*\[\"es\"\]"
    ):
        load_system(folder)
    with pytest.raises(ValueError, match="got 'klingon'"):
        load_system(folder, languages=["klingon"])
    card = (folder / "README.md").read_text()
    card = card.replace("library_name", "language: [ja, ru]\nlibrary_name", 1)
    (folder / "README.md").write_text(card)
    assert load_system(folder)[1].languages == ["ja", "ru"]


def test_an_adapter_runs_on_the_whisper_that_it_names(adapter, trio, make_whisper):
    folder, _ = adapter
    same = Backbone(make_whisper(), name="elsewhere")
    assert load_system(folder, same, ["es"])[0] is same  # by its weights
    assert load_system(folder, trio, ["fr"])[0] is trio  # by its name
    other = Backbone(make_whisper(2), name="other")
    loaded, _, _ = load_system(folder, other, ["es"])
    assert loaded.sha256 == same.sha256 != other.sha256
    assert other.bank.names == []


def test_an_adapter_without_a_backbone_takes_the_given_one(adapter, make_whisper):
    folder, _ = adapter
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = None
    write_json(folder / "adapter_config.json", config)
    given = Backbone(make_whisper(), name="given")
    assert load_system(folder, given, ["es"])[0] is given
    with pytest.raises(ValueError, match="adapter must name its backbone .*give back"):
        load_system(folder, languages=["es"])


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """Lays a folder into Hugging Face's cache as a repository; the hub is off."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    cache = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))

    def lay(folder, repo_id):
        repo = cache / f"models--{repo_id.replace('/', '--')}"
        (repo / "refs").mkdir(parents=True)
        (repo / "refs" / "main").write_text("0" * 40)
        (repo / "snapshots").mkdir()
        return folder.rename(repo / "snapshots" / ("0" * 40))

    return lay


def test_a_cached_hub_id_loads_offline(tmp_path, make, cached, mel, langs):
    backbone, system = make("mole")
    backbone.name = "nobody/whisper"
    save_system(tmp_path / "mole", backbone, system)
    expected = logits(backbone, system, mel)
    cached(tmp_path / "mole", "me/mole")
    for name in "me/mole", "me/mole@main", f"me/mole@{'0' * 40}":
        loaded, again, _ = load_system(name, backbone)
        assert torch.equal(logits(loaded, again, mel), expected)


def test_a_hub_id_that_is_not_cached_is_told_offline(cached):
    with pytest.raises(FileNotFoundError) as error:
        load_system("me/unknown")
    message = str(error.value)
    assert message.startswith("me/unknown must be a system's folder, or a hub id that")
    for part in (
        "local folder: me/unknown does not exist",
        "hub: HF_HUB_OFFLINE is set",
        "hub cache: no complete snapshot",
        "go online once, without HF_HUB_OFFLINE",
    ):
        assert part in message


@pytest.mark.parametrize("name", ["exp/lab/kd", "kd", "/exp/kd", "../kd", "me/kd@"])
def test_a_path_that_is_no_hub_id_asks_no_hub(name, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", None)
    with pytest.raises(FileNotFoundError, match="a hub id looks like user/name"):
        load_system(name)


@pytest.mark.parametrize(
    "outside", ["../../private", "/private", "~/private", "a/../.."]
)
def test_a_download_names_no_file_of_this_machine(
    tmp_path, make, cached, make_whisper, outside
):
    save_system(tmp_path / "single", *make("single"))
    what = read_description(tmp_path / "single")
    write_json(tmp_path / "single" / DESCRIPTION, what | {"experts": {"ru": outside}})
    folder = cached(tmp_path / "single", "me/paths")
    with pytest.raises(ValueError, match="must name paths inside its repository"):
        load_system("me/paths")
    what["backbone"]["name"] = outside
    write_json(folder / DESCRIPTION, what)
    with pytest.raises(ValueError, match="must name its backbone by a hub id"):
        load_system("me/paths")
    given = Backbone(make_whisper())
    assert load_system("me/paths", given)[0] is given


def test_a_download_has_no_pickle(adapter, cached):
    folder, _ = adapter
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    cached(folder, "me/pickle")
    with pytest.raises(FileNotFoundError, match="pickles are not .*`hf download me/p"):
        load_system("me/pickle", languages=["es"])


def test_what_is_no_system_is_named(tmp_path, whisper_folder):
    (tmp_path / "clip.wav").write_text("")
    for path in tmp_path / "clip.wav", tmp_path:
        with pytest.raises(
            FileNotFoundError, match=f"{path} must be a system's folder"
        ):
            load_system(path)
    with pytest.raises(ValueError, match="is a Whisper by itself; give it to Speech2T"):
        load_system(whisper_folder)
