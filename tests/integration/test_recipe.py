"""The recipe in quick mode: real weights, real speech, every stage, own folder."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import soundfile

from espnet_lora_experts.report.kaldi import read_table, write_table

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
BOTH = {"aware", "agnostic"}
MODES = {
    "vanilla": BOTH,
    "mono": {"aware"},
    "two_pass": {"agnostic"},
    "multi": BOTH,
    "mole": BOTH,
    "kd": BOTH,
    "kd_logits_only": BOTH,
    "full": BOTH,
}


@pytest.fixture(scope="module")
def clip(recipe) -> Path:
    """A clip of the test set."""
    rows = (recipe / "dump/raw/test/wav.scp").read_text().splitlines()
    return recipe / rows[0].split(maxsplit=1)[1]


def test_every_system_has_results_in_its_modes(recipe):
    results = json.loads((recipe / "exp/results.json").read_text())["systems"]
    assert set(results) == set(MODES)
    for name, modes in MODES.items():
        assert {m for m in BOTH if results[name].get(m)} == modes, name
        for mode in modes:
            assert set(results[name][mode]["wer"]) == {"es", "fr", "ro", "ru"}
    assert "lid_acc" in results["mole"]["agnostic"]
    assert (recipe / "exp/RESULTS.md").read_text().count("|kd|")


def test_training_starts_from_what_it_should(recipe):
    results = json.loads((recipe / "exp/results.json").read_text())["systems"]
    assert results["vanilla"]["trained_params"] == 0
    assert results["mono"]["trained_params"] == 2 * results["multi"]["trained_params"]
    assert results["mole"]["trained_params"] < results["kd"]["trained_params"] / 10
    assert (
        results["full"]["trained_params"] > results["vanilla"]["deployed_params"] * 0.9
    )


def test_rerun_with_skip_done_trains_and_decodes_nothing(recipe, run):
    watched = [*recipe.glob("exp/*/train.log"), *recipe.glob("exp/*/*/*/decode.json")]
    before = {path: os.stat(path).st_mtime_ns for path in watched}
    done = run(recipe, "--stage", "5", "--skip_done", "true")
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(before) > 15
    assert {path: os.stat(path).st_mtime_ns for path in watched} == before


@pytest.fixture(scope="module")
def own_data(recipe) -> list[str]:
    """Options for a user's own folders: stereo wav files of two languages."""
    options = []
    for kind, name in (("train", "train"), ("valid", "dev"), ("test", "test")):
        folder = recipe / f"data/my_{name}"
        folder.mkdir()
        tables = {"wav.scp": {}, "text": {}, "utt2lang": {}, "utt2spk": {}}
        for table, rows in tables.items():
            rows |= read_table(recipe / f"data/{name}" / table)
        kept = [u for u, lang in tables["utt2lang"].items() if lang in ("es", "ru")]
        for utt in kept:
            path = recipe / tables["wav.scp"][utt]
            samples, rate = soundfile.read(path, always_2d=True)
            tables["wav.scp"][utt] = str(folder / f"{utt}.wav")
            soundfile.write(folder / f"{utt}.wav", samples[:, [0, -1]], rate)
        for table, rows in tables.items():
            write_table(folder / table, {utt: rows[utt] for utt in kept})
        options += [f"--{kind}_set{'s' * (kind == 'test')}", f"my_{name}"]
    return [*options, "--stage", "2", "--langs", "es ru"]


def test_experts_of_one_job_each_on_own_data_are_one_system(recipe, own_data, run):
    options = [*own_data, "--expdir", "exp_apart", "--stop_stage", "5"]
    done = run(recipe, *options, "--joint_experts", "false")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    what = json.loads((recipe / "exp_apart/mono/system.json").read_text())
    assert what["experts"] == {
        "es": "../mono_es/experts/es",
        "ru": "../mono_ru/experts/ru",
    }
    lone = json.loads((recipe / "exp_apart/mono_es/system.json").read_text())
    assert what["trained_params"] == 2 * lone["trained_params"]


def test_sweep_compares_a_variant_with_what_was_trained(recipe):
    (recipe / "depth.txt").write_text(
        "# How deep?\nmole L1_2 --model_conf merged_layers=2\n"
        "mole@top2  # both experts\ntwo_pass@multi\n"
    )
    before = (recipe / "exp/RESULTS.md").read_text()
    command = ["./sweep.sh", "depth.txt", "--quick", "true"]
    done = subprocess.run(command, cwd=recipe, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    results = json.loads((recipe / "exp/sweeps/depth/results.json").read_text())
    systems = results["systems"]
    compared = ["multi", "mole", "mole_L1_2", "mole@top2", "two_pass", "two_pass@multi"]
    assert list(systems) == compared
    lid = {name: row["agnostic"]["lid_acc"] for name, row in systems.items()}
    assert lid["mole@top2"] == lid["mole"]
    assert lid["two_pass@multi"] == lid["multi"]
    assert "|mole_L1_2|merged_layers=2|" in done.stdout
    assert "|mole@top2|both experts|" in done.stdout
    assert systems["mole"]["trained_params"] < systems["mole_L1_2"]["trained_params"]
    assert (recipe / "exp/RESULTS.md").read_text() == before


def test_a_language_is_added_and_the_old_systems_stay(recipe, run):
    """Nothing outside of exp/add_be is written, and nothing of it decoded again."""
    downloads = ["--download_dir", str(ROOT / "egs2/mini_multilingual/asr1/downloads")]
    files = [x for x in recipe.glob("exp/*/**/*") if x.is_file()]
    before = {path: os.stat(path).st_mtime_ns for path in files}
    done = run(recipe, "--add_lang", "be", *downloads)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "files of the old experts and systems are the same as before" in done.stdout
    assert {path: os.stat(path).st_mtime_ns for path in files} == before
    results = json.loads((recipe / "exp/add_be/results.json").read_text())
    for system in ("mole", "kd"):
        changes = results["changes"][system]
        assert changes["steps"]["after"] == 1 < changes["steps"]["before"]
        for mode in BOTH:
            assert list(changes[mode]) == ["es", "fr", "ro", "ru", "avg", "be"]
    known = {"be", "es", "fr", "ro", "ru"}
    for system in ("vanilla", "mono", "mole", "kd"):
        assert set(results["systems"][system]["aware"]["wer"]) == known
    assert "|mole|agnostic|be|-|" in (recipe / "exp/add_be/RESULTS.md").read_text()


def test_experts_merge_without_training(recipe, clip):
    from espnet_lora_experts.bin import fuse
    from espnet_lora_experts.inference import Speech2Text

    output = recipe / "exp/merged"
    fuse.main(["--input", str(recipe / "exp/mono"), "--output", str(output)])
    assert Speech2Text.from_pretrained(output)(clip, "es").lang == "es"


def test_python_examples_of_the_readme_run(recipe, clip, tmp_path, monkeypatch, capsys):
    """With the models of the quick run, and clips under the names used there."""
    from espnet_lora_experts.whisper import hub

    (tmp_path / "egs2/mini_multilingual").mkdir(parents=True)
    (tmp_path / "egs2/mini_multilingual/asr1").symlink_to(recipe)
    samples, rate = soundfile.read(clip)
    for name in ("clip.ogg", "a.wav", "b.flac"):
        soundfile.write(tmp_path / name, samples, rate)
    monkeypatch.chdir(tmp_path)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    examples = re.findall(r"^```python\n(.*?)^```", readme, re.M | re.S)
    assert len(examples) >= 2
    for example in examples:
        names: dict = {}
        name = "openai/whisper-tiny"
        exec(example.replace(name, str(hub.resolve(name))), names)
        if "results" in names:
            assert [result.lang for result in names["results"]] == ["es", "ru"]
            assert names["result"].text in capsys.readouterr().out
        if "spanish" in names:
            assert names["spanish"].active_adapters == ["default"]


def test_peft_parity_of_every_trained_expert(recipe):
    check_parity(sorted(recipe.glob("exp/*/experts/*")), minimum=10)


def test_peft_parity_of_the_recipes_own_experts():
    folders = sorted(ROOT.glob("egs2/*/asr1/exp/*/experts/*"))
    if not folders:
        pytest.skip("no recipe has been run in place")
    check_parity(folders, minimum=1)


def check_parity(folders: list[Path], minimum: int) -> None:
    """Each expert gives the same logits here and in plain peft."""
    import peft
    import torch
    from transformers import WhisperForConditionalGeneration

    from espnet_lora_experts.experts.gate import everywhere
    from espnet_lora_experts.experts.store import load_expert
    from espnet_lora_experts.whisper import hub
    from espnet_lora_experts.whisper.backbone import Backbone

    assert len(folders) >= minimum
    source = hub.resolve("openai/whisper-tiny")
    ids = torch.tensor([[50258, 50262, 50359, 50363, 440, 1000]])
    mel = torch.randn(1, 80, 3000, generator=torch.Generator().manual_seed(0))
    ours = Backbone.from_pretrained("openai/whisper-tiny")
    for folder in folders:
        plain = WhisperForConditionalGeneration.from_pretrained(source)
        plain = peft.PeftModel.from_pretrained(plain, folder).eval()
        load_expert(ours.bank, "checked", folder, ours.sha256)
        with torch.no_grad():
            expected = plain(input_features=mel, decoder_input_ids=ids).logits
            with ours.bank.using(everywhere("checked")):
                got = ours.hf(input_features=mel, decoder_input_ids=ids).logits
        ours.bank.drop("checked")
        torch.testing.assert_close(got, expected, atol=2e-4, rtol=1e-4)
