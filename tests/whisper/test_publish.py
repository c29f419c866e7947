"""What goes up to a hub comes down as the same system, and nothing else goes up."""

import json

import huggingface_hub
import pytest
import torch
from peft import PeftModel

from espnet_lora_experts.bin import combine, push
from espnet_lora_experts.experts.gate import everywhere
from espnet_lora_experts.experts.store import README
from espnet_lora_experts.whisper import publish
from espnet_lora_experts.whisper.backbone import Backbone
from espnet_lora_experts.whisper.card import update_cards
from espnet_lora_experts.whisper.description import DESCRIPTION, write_json
from espnet_lora_experts.whisper.folder import load_system, save_system
from espnet_lora_experts.whisper.systems import Experts, Single, System, encode

LANGUAGES = ["es", "ru", "ja"]
REPO, WHISPER = "me/system", "me/whisper"
ADAPTER = ["README.md", "adapter_config.json", "adapter_model.safetensors"]


@torch.no_grad()
def encoded(backbone, system, mel, langs):
    return encode(backbone, system, *mel, langs).hidden_BPD


def cluttered(folder):
    """What a training leaves beside its system."""
    for name in ("checkpoint.pth", "train.log", "config.yaml", "README.md.bak"):
        (folder / name).write_text("")
    (folder / "tensorboard").mkdir()
    (folder / "tensorboard" / "metadata.json").write_text("{}")
    return folder


@pytest.fixture
def trio(trio, local_hub, whisper_folder):
    """The trio on a Whisper that is on the hub as well."""
    files = {path.name: path.read_bytes() for path in whisper_folder.iterdir()}
    local_hub.put(WHISPER, files)
    trio.name = WHISPER
    return trio


@pytest.fixture
def save(trio, make_mole, tmp_path):
    def build(name):
        backbone = trio
        if name == "full":
            backbone = Backbone.from_pretrained(trio.name)
            backbone.hf.model.encoder.layer_norm.weight.data.mul_(1.1)
        system = {
            "experts": lambda: Experts(LANGUAGES),
            "single": lambda: Single(LANGUAGES, "ru"),
            "mole": make_mole,
            "full": lambda: System(LANGUAGES),
        }[name]()
        folder = tmp_path / "exp" / name
        save_system(folder, backbone, system, {"steps": 7})
        return cluttered(folder), backbone, system

    return build


@pytest.mark.parametrize("name", ["single", "experts", "mole", "full"])
def test_pushed_and_loaded_by_its_id_is_the_same(local_hub, save, mel, langs, name):
    folder, backbone, system = save(name)
    url = publish.push(folder, REPO)
    assert url == f"{local_hub.url}/{REPO}/commit/{1:040x}"
    files = local_hub.repos[REPO][-1]
    rest = {path.rpartition("/")[2] for path in files}
    assert not rest & {"checkpoint.pth", "train.log", "config.yaml", "metadata.json"}
    loaded, again, what = load_system(REPO)
    assert type(again) is type(system) and what["steps"] == 7
    expected = encoded(backbone, system, mel, langs)
    assert torch.equal(encoded(loaded, again, mel, langs), expected)


def test_what_was_downloaded_is_there_offline(local_hub, save, monkeypatch):
    publish.push(save("single")[0], REPO)
    load_system(REPO)
    before = list(local_hub.fetched)
    assert "experts/ru/adapter_model.safetensors" in before
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert load_system(REPO)[1].languages == LANGUAGES
    assert local_hub.fetched == before


def test_a_revision_is_the_one_that_is_named(local_hub, save):
    folder, backbone, _ = save("single")
    publish.push(folder, REPO)
    save_system(folder, backbone, Single(["es", "ja"], "ja"))
    publish.push(folder, REPO)
    assert load_system(REPO)[2]["languages"] == ["es", "ja"]
    assert load_system(f"{REPO}@{1:040x}")[2]["languages"] == LANGUAGES
    with pytest.raises(FileNotFoundError, match="RevisionNotFoundError"):
        load_system(f"{REPO}@none")


def test_experts_of_other_folders_come_along(local_hub, trio, tmp_path, mel, langs):
    parts = [tmp_path / f"mono_{code}" for code in LANGUAGES]
    sizes = {"steps": 1, "trained_params": 1, "deployed_params": 2}
    for folder, code in zip(parts, LANGUAGES, strict=True):
        save_system(folder, trio, Experts([code]), sizes)
    inputs = " ".join(map(str, parts))
    combine.main(["--inputs", inputs, "--output", str(tmp_path / "mono")])
    update_cards(tmp_path / "mono", repo_id=REPO)
    publish.push(tmp_path / "mono", REPO)
    files = local_hub.repos[REPO][-1]
    assert json.loads(files[DESCRIPTION])["experts"]["ru"] == "experts/ru"
    assert sorted(files) == sorted(
        [README, DESCRIPTION]
        + [f"experts/{code}/{name}" for code in LANGUAGES for name in ADAPTER]
    )
    expected = encoded(trio, Experts(LANGUAGES), mel, langs)
    loaded, system, _ = load_system(REPO)
    assert torch.equal(encoded(loaded, system, mel, langs), expected)


def test_an_expert_by_itself_is_a_plain_adapter_and_a_system(
    local_hub, save, make_whisper, mel
):
    folder, backbone, _ = save("experts")
    publish.push(folder / "experts" / "es", "me/es")
    assert sorted(local_hub.repos["me/es"][-1]) == ADAPTER
    loaded, system, what = load_system("me/es")
    assert (system.expert, what["languages"]) == ("es", ["es"])
    expected = encoded(backbone, Single(["es"], "es"), mel, None)
    assert torch.equal(encoded(loaded, system, mel, None), expected)
    peft = PeftModel.from_pretrained(make_whisper(), "me/es").eval()
    with torch.no_grad(), backbone.bank.using(everywhere("es")):
        args = {"input_features": torch.randn(1, 80, 200)}
        args["decoder_input_ids"] = torch.tensor([[257, 260, 3]])
        torch.testing.assert_close(peft(**args).logits, backbone.hf(**args).logits)


def test_a_later_upload_of_another_kind_leaves_nothing_behind(local_hub, save):
    publish.push(save("mole")[0], REPO)
    local_hub.repos[REPO][-1]["samples/mine.json"] = b"{}"
    folder = save("experts")[0]
    publish.push(folder / "experts" / "es", REPO)
    assert sorted(local_hub.repos[REPO][-1]) == [*ADAPTER, "samples/mine.json"]


def test_the_command_fills_the_cards_and_prints_where(local_hub, save, capsys):
    folder = save("single")[0]
    modes = dict.fromkeys(["wer", "cer"], dict.fromkeys(LANGUAGES, 12.34))
    modes |= {"avg_wer": 12.34, "avg_cer": 12.34, "ci95": [10.0, 15.0]}
    scores = {"meta": {"utterances": {"eval": 9}}}
    scores["systems"] = {"single": {"aware": modes}}
    write_json(folder.parent / "results.json", scores)
    push.main([str(folder), REPO, "--private", "--license", "cc-by-4.0"])
    assert capsys.readouterr().out == f"{local_hub.url}/{REPO}/commit/{1:040x}\n"
    assert local_hub.visibility == {REPO: "private"}
    card = huggingface_hub.ModelCard(local_hub.repos[REPO][-1][README].decode())
    assert card.data.license == "cc-by-4.0"
    assert card.data.eval_results[0].metric_value == 12.34
    assert f'from_pretrained("{REPO}")' in card.text


def test_only_what_a_system_needs_is_downloaded(local_hub, save):
    publish.push(save("single")[0], REPO)
    local_hub.repos[REPO][-1] |= {"old.ckpt": b"1", "evil.pkl": b"2", "run.py": b"3"}
    load_system(REPO)
    assert not {"old.ckpt", "evil.pkl", "run.py"} & set(local_hub.fetched)
    assert "system.json" in local_hub.fetched


def test_a_whisper_on_the_hub_is_no_system_and_not_downloaded(local_hub, trio):
    with pytest.raises(ValueError, match=r"me/whisper must be .* system\.json or adap"):
        load_system(WHISPER)
    assert local_hub.fetched == []


def test_who_may_not_write_is_told_to_log_in(local_hub, save, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    folder = save("single")[0]
    with pytest.raises(
        ValueError, match=r"single must go to the hub .*403.*auth login"
    ):
        publish.push(folder, REPO)
    assert REPO not in local_hub.repos
    publish.push(folder, REPO, token="hf_writer")
    assert REPO in local_hub.repos


def test_offline_is_told(save, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="must go to the hub as me/system, but: Offl"):
        publish.push(save("single")[0], REPO)


def test_what_is_not_whole_does_not_go_up(local_hub, save):
    folder = save("mole")[0]
    weights = folder / "experts" / "ru" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    with pytest.raises(ValueError, match="ru/adapter_model.* must be a whole safet"):
        publish.push(folder, REPO)
    weights.unlink()
    with pytest.raises(FileNotFoundError, match="ru/adapter_model.* must exist"):
        publish.push(folder, REPO)
    (weights.parent / "adapter_config.json").unlink()
    with pytest.raises(FileNotFoundError, match="ru must be a PEFT adapter folder"):
        publish.push(folder, REPO)
    assert REPO not in local_hub.repos


@pytest.mark.parametrize("kind", ["vanilla", "two_pass"])
def test_a_system_without_weights_is_not_published(tmp_path, kind):
    what = {"type": kind, "languages": ["es"]}
    what["backbone"] = {"name": "openai/whisper-tiny", "sha256": "a"}
    write_json(tmp_path / DESCRIPTION, what)
    with pytest.raises(ValueError, match=kind):
        publish.contents(tmp_path)


def test_a_backbone_that_others_cannot_load_is_told(trio, save, tmp_path, caplog):
    publish.contents(save("single")[0])
    assert caplog.text == ""
    trio.name = str(tmp_path)
    publish.contents(save("experts")[0])
    assert "should name its backbone by a hub id" in caplog.text
