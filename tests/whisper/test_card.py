"""Cards say what is true, load as they say, and never overwrite a person's."""

import json
import re

import pytest
import torch
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import eval_results_to_model_index
from peft import PeftModel
from transformers import WhisperForConditionalGeneration

import espnet_lora_experts
from espnet_lora_experts.experts.gate import everywhere
from espnet_lora_experts.whisper.backbone import Backbone
from espnet_lora_experts.whisper.card import is_ours, languages_of, update_cards
from espnet_lora_experts.whisper.folder import load_system, save_system
from espnet_lora_experts.whisper.systems import Experts, Single, System

LANGUAGES = ["es", "ru", "ja"]
FACTS = {"steps": 1234, "epochs": 3, "trained_params": 7, "deployed_params": 9}


def rates(value, **more):
    return {
        "wer": {code: value + i for i, code in enumerate(LANGUAGES)},
        "cer": {code: value / 2 for code in LANGUAGES},
        "avg_wer": value + 1,
        "avg_cer": value / 2,
        "ci95": [value, value + 2],
    } | more


RESULTS = {
    "meta": {"utterances": {"eval": 1500}},
    "systems": {
        "kd": {
            "aware": rates(20.0),
            "agnostic": rates(
                30.0, lid_acc=97.0, lid_acc_lang=dict.fromkeys(LANGUAGES, 97.0)
            ),
        },
        "mono": {"aware": rates(10.0)},
        "mole": {"aware": rates(40.0), "agnostic": rates(50.0)},
    },
}


@pytest.fixture
def save(trio, make_mole, tmp_path):
    """Saves a system under its name in RESULTS."""

    def build(name):
        systems = {
            "kd": lambda: Single(LANGUAGES, "ru"),
            "mono": lambda: Experts(LANGUAGES),
            "mole": make_mole,
        }
        save_system(tmp_path / name, trio, systems[name](), FACTS)
        return tmp_path / name

    return build


def read(folder):
    return ModelCard((folder / "README.md").read_text(encoding="utf-8"))


def index(card):
    """Value of each metric by its name and language."""
    return {
        (result.metric_name, result.dataset_config): result.metric_value
        for result in card.data.eval_results or ()
    }


def test_every_folder_that_is_saved_has_a_card(save):
    for name in "kd", "mono", "mole":
        folder = save(name)
        experts = json.loads((folder / "system.json").read_text())["experts"]
        for at in (folder, *(folder / path for path in experts.values())):
            card = read(at)
            assert is_ours(card.content)
            assert card.data.library_name == "peft"
            assert card.data.pipeline_tag == "automatic-speech-recognition"
            assert card.data.eval_results is None
            assert "## Results" not in card.text


def test_a_card_says_what_the_system_is(trio, save):
    trio.name = "openai/whisper-tiny"
    card = read(save("kd"))
    assert card.data.base_model == "openai/whisper-tiny"
    assert card.data.base_model_relation == "adapter"
    assert card.data.language == LANGUAGES
    for row in (
        "| languages | Spanish (es), Russian (ru), Japanese (ja) |",
        f"| backbone | openai/whisper-tiny, sha256 {trio.sha256[:12]} |",
        "| LoRA | r 3, lora_alpha 3, on fc1 fc2 k_proj out_proj q_proj v_proj |",
        "| steps | 1,234 |",
        "| trained parameters | 7 |",
    ):
        assert row in card.text
    trio.name = "/home/me/whisper-mine"
    card = read(save("kd"))
    assert card.data.base_model is None
    assert "/home/me" not in card.content


def test_an_experts_card_is_of_its_own_language(save):
    card = read(save("mono") / "experts" / "ja")
    assert card.data.language == ["ja"]
    assert "| languages | Japanese (ja) |" in card.text
    assert "trained parameters" not in card.text
    assert "| steps | 1,234 |" in card.text


def test_an_experts_card_in_a_mole_says_nothing_of_the_moles_training(save):
    folder = save("mole")
    update_cards(folder, RESULTS)
    card = read(folder / "experts" / "ja")
    assert card.data.eval_results is None
    assert "steps" not in card.text
    assert "| merged layers | 1 |" in read(folder).text


def test_a_full_fine_tuning_is_no_adapter(trio, tmp_path):
    bare = Backbone.from_pretrained(trio.name)
    save_system(tmp_path / "full", bare, System(LANGUAGES))
    card = read(tmp_path / "full")
    assert card.data.library_name == "transformers"
    assert card.data.base_model_relation == "finetune"
    assert "peft" not in card.content.lower()
    assert f"path/to/{bare.name.rpartition('/')[2]}" in card.text


def test_results_fill_the_table_and_the_index(save):
    folder = save("kd")
    written = update_cards(folder, RESULTS)
    assert [p.parent.name for p in written] == ["kd", "ru"]
    for at in folder, folder / "experts" / "ru":
        card = read(at)
        values = index(card)
        assert len(values) == 12
        assert values["WER, language given", "ru"] == 21.0
        assert values["CER, language found", "ja"] == 15.0
        assert card.data.metrics == ["wer", "cer"]
        assert "test sets: eval (1,500 utterances)." in card.text
        assert "| Russian (ru) | 21.0 | 10.0 | 31.0 | 15.0 | 97.0 |" in card.text
        average = "| average | 21.0 [20.0, 22.0] | 10.0 | 31.0 [30.0, 32.0] | 15.0 |"
        assert average in card.text
    (entry,) = eval_results_to_model_index("kd", read(folder).data.eval_results)
    assert {r["dataset"]["config"] for r in entry["results"]} == set(LANGUAGES)


def test_results_of_one_expert_are_those_of_its_language(save):
    folder = save("mono")
    assert update_cards(folder / "experts" / "ru", RESULTS) == [
        folder / "experts" / "ru" / "README.md"
    ]
    card = read(folder / "experts" / "ru")
    assert index(card) == {
        ("WER, language given", "ru"): 11.0,
        ("CER, language given", "ru"): 5.0,
    }
    assert "average" not in card.text
    assert read(folder).data.eval_results is None  # only the one was asked for


def test_results_of_other_systems_change_nothing(save):
    folder = save("kd")
    before = (folder / "README.md").stat()
    others = {name: of for name, of in RESULTS["systems"].items() if name != "kd"}
    update_cards(folder, RESULTS | {"systems": others})
    assert (folder / "README.md").stat().st_mtime_ns == before.st_mtime_ns


def test_a_trainings_options_and_data_are_told(save, tmp_path):
    folder = save("kd")
    data = tmp_path / "dump" / "my_train"
    data.mkdir(parents=True)
    (data / "utt2lang").write_text("a es\nb es\nc ru\nd de\n")
    (data / "utt2num_samples").write_text("a 28800000\nb 28800000\nc 57600000\nd 1\n")
    (folder / "config.yaml").write_text(
        "seed: 5\noptim: adamw\noptim_conf:\n    lr: 0.5\ntoken_list:\n- '!'\n- '\"'\n"
        "batch_bins: 640000\ntrain_data_path_and_name_and_type:\n"
        "-   - dump/my_train/wav.scp\n    - speech\n    - sound\n"
    )
    update_cards(folder)
    text = read(folder).text
    for row in (
        "| optim_conf | lr 0.5 |",
        "| batch_bins | 640,000 |",
        "| language (my_train) | utterances | hours |",
        "| Spanish (es) | 2 | 1.00 |",
        "| Russian (ru) | 1 | 1.00 |",
    ):
        assert row in text
    assert "(de)" not in text


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: "Mine alone.\n",
        lambda text: text.replace("# kd", "# My best model"),
        lambda text: text + "More of mine.\n",
        lambda text: text.replace("language:", "license: mit\nlanguage:", 1),
        lambda text: re.sub("<!--.*-->", "", text),
    ],
    ids=["own", "title", "appended", "metadata", "mark"],
)
def test_a_persons_card_stays(save, edit, caplog):
    for at in "", "experts/ru":
        card = save("kd") / at / "README.md"
        card.write_text(edit(card.read_text()))
        mine = card.read_text()
        assert card not in update_cards(save("kd"), RESULTS, "me/kd", "mit")
        assert card.read_text() == mine
        assert f"{card} was edited or is not ours" in caplog.text
        card.unlink()


def test_our_card_is_written_anew_and_keeps_its_license(save):
    folder = save("kd")
    update_cards(folder, RESULTS, license="cc-by-4.0")
    update_cards(folder, RESULTS, "me/kd")
    card = read(folder)
    assert card.data.license == "cc-by-4.0"
    assert 'from_pretrained("me/kd")' in card.text
    save("kd")
    assert read(folder).data.eval_results is None  # other weights, other results
    assert read(folder).data.license == "cc-by-4.0"


def test_an_adapter_of_others_is_left_alone(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    assert update_cards(tmp_path, RESULTS) == []
    assert [path.name for path in tmp_path.iterdir()] == ["adapter_config.json"]


@pytest.mark.parametrize(
    ("metadata", "codes"),
    [
        ("language: es", ["es"]),
        ("language: [es, pt-BR, ES, jv, tlh]", ["es", "pt", "jw"]),
        ("license: mit", []),
        ("language: [", []),
        ("language: no", ["no"]),
        ("language:\r\n- es\r", ["es"]),
        ("language: es\nx: " + "[" * 3000, []),
        ("language: es\nx: " + "{a: " * 300, []),
        ("language: es\n..\n---\n]", []),
        ("- es", []),
    ],
)
def test_languages_come_from_the_metadata(tmp_path, metadata, codes):
    (tmp_path / "README.md").write_text(f"---\n{metadata}\n---\n# Title\n")
    assert languages_of(tmp_path) == codes


def code(card):
    """The blocks of Python of a card."""
    return re.findall(r"```python\n(.*?)```", card.text, re.DOTALL)


@pytest.mark.parametrize("name", ["kd", "mono", "mole", "full"])
def test_the_lines_that_load_do_load(
    trio, save, tmp_path, monkeypatch, whisper_folder, name
):
    """The card's own Python is run, where the folder lies and the clip is."""
    if name == "full":
        bare = Backbone.from_pretrained(trio.name)
        save_system(tmp_path / "full", bare, System(LANGUAGES))
    else:
        save(name)
    heard = []
    monkeypatch.setattr(
        espnet_lora_experts.Speech2Text,
        "__call__",
        lambda self, clip, lang=None: heard.append((clip, lang)) or self,
    )
    espnet_lora_experts.Speech2Text.text = ""
    monkeypatch.chdir(tmp_path)
    whisper = {"path/to/whisper-random": str(whisper_folder)}
    ours, plain = code(read(tmp_path / name))
    exec(ours, {})
    assert heard == [("clip.wav", "es" if name == "mono" else None)]
    found = {}
    for old, new in whisper.items():
        plain = plain.replace(old, new)
    exec(plain, found)
    if name == "full":
        assert isinstance(found["whisper"], WhisperForConditionalGeneration)
        return
    assert isinstance(found["model"], PeftModel)
    args = {"input_features": torch.randn(1, 80, 200)}
    args["decoder_input_ids"] = torch.tensor([[257, 260, 3]])
    expert = "ru" if name == "kd" else "es"
    with torch.no_grad(), trio.bank.using(everywhere(expert)):
        expected = trio.hf(**args).logits
        torch.testing.assert_close(found["model"].eval()(**args).logits, expected)


def test_the_lines_of_an_experts_card_load_it_alone(save, tmp_path, monkeypatch):
    card = read(save("mono") / "experts" / "ru")
    monkeypatch.chdir(tmp_path)
    name = re.search(r'Speech2Text.from_pretrained\("(.*)"\)', card.text)[1]
    assert name == "mono/experts/ru"
    _, system, what = load_system(name)
    assert (system.expert, what["languages"]) == ("ru", ["ru"])
