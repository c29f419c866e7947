"""The command line of scoring."""

import json
from pathlib import Path

import pytest

from espnet_lora_experts.bin import score
from espnet_lora_experts.report.errors import count_errors

TEXTS = {"es_1": "Uno, dos.", "es_2": "Tres.", "fr_1": "Un deux", "fr_2": "trois"}


def table(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{utt} {value}".strip() + "\n" for utt, value in rows.items()]
    path.write_text("".join(lines), encoding="utf-8")


MODES = ("aware", "agnostic")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Two test sets and two systems; kd is perfect, multi says nothing."""
    monkeypatch.chdir(tmp_path)
    for name, lang in (("t_es", "es"), ("t_fr", "fr")):
        texts = {utt: text for utt, text in TEXTS.items() if utt.startswith(lang)}
        langs = dict.fromkeys(texts, lang)
        table(tmp_path / f"dump/raw/{name}/text", texts)
        table(tmp_path / f"dump/raw/{name}/utt2lang", langs)
        for system in ("multi", "kd"):
            said = texts if system == "kd" else dict.fromkeys(texts, "")
            for mode in MODES:
                folder = tmp_path / f"exp/{system}/decode_{mode}/{name}"
                table(folder / "text", said)
                table(folder / "lang", langs)
                (folder / "decode.json").write_text('{"rtf": 0.5}')
    for system in ("multi", "kd"):
        size = {"steps": 5, "trained_params": 7, "deployed_params": 9}
        (tmp_path / f"exp/{system}/system.json").write_text(json.dumps(size))
    return tmp_path


def run(*options, systems="multi kd"):
    return score.main(["--test_sets", "t_es t_fr", "--systems", systems, *options])


def test_sets_are_pooled_and_files_written(project, capsys):
    built = run("--results_md", "RESULTS.md")
    assert built == json.loads((project / "exp/results.json").read_text())
    kd = built["systems"]["kd"]
    assert kd["aware"]["wer"] == kd["agnostic"]["wer"] == {"es": 0.0, "fr": 0.0}
    assert kd["agnostic"]["lid_acc"] == 100.0
    assert built["systems"]["multi"]["aware"]["avg_wer"] == 100.0
    assert kd["aware"]["p_vs_multi"] < 0.01
    assert (kd["steps"], kd["trained_params"], kd["deployed_params"]) == (5, 7, 9)
    assert kd["aware"]["rtf"] == 0.5
    page = (project / "RESULTS.md").read_text()
    assert "|kd/decode_agnostic/fr|2|3|100.0|" in page
    out = capsys.readouterr().out
    assert "Language-aware" in out
    assert out.count("|kd|") == 4
    assert "## Language identification\n\n|system|es|fr|avg|\n" in out
    trn = project / "exp/kd/decode_aware/t_es/score_wer/hyp.trn"
    assert trn.read_text() == "uno dos\t(es_1-es_1)\ntres\t(es_2-es_2)\n"


def rewrite(project, system, change):
    """Changes what a system wrote in every mode."""
    for path in (project / "exp" / system).glob("decode_*/*/text"):
        path.write_text(change(path.read_text()))


def test_every_way_of_scoring_is_stored_and_shown(project):
    """Texts that differ in case and marks alone are wrong where nothing is folded."""
    rewrite(project, "kd", lambda text: text.replace("Uno, dos.", "uno dos"))
    built = run()
    row = built["systems"]["kd"]["aware"]
    ways = {name: x["wer"] for name, x in row["other_texts"].items()}
    assert row["wer"] == {"es": 0.0, "fr": 0.0} == ways["whisper"]
    assert ways["raw"] == {"es": pytest.approx(100 * 2 / 3), "fr": 0.0}
    raw = row["other_texts"]["raw"]
    assert raw["avg_wer"] == pytest.approx(100 / 3)
    assert raw["ci95"][0] <= raw["avg_wer"] <= raw["ci95"][1]
    page = (project / "exp/RESULTS.md").read_text()
    assert "|system|aware, scored|aware, raw|aware, whisper|agnostic, scored|" in page
    low, high = raw["ci95"]
    cell = f"|kd|0.0 [0.0, 0.0]|33.3 [{low:.1f}, {high:.1f}]|0.0 [0.0, 0.0]|"
    assert cell in page
    assert built["meta"]["scored_text"] == {"case": "lower", "punctuation": "remove"}


def test_case_and_punctuation_may_count(project):
    rewrite(project, "kd", lambda text: text.replace("Uno, dos.", "uno dos."))
    options = {
        (): 0,
        ("--score_case", "keep"): 1,
        ("--score_punctuation", "keep"): 1,
        ("--score_case", "keep", "--score_punctuation", "keep"): 1,
    }
    for words, wrong in options.items():
        counts = run(*words)["systems"]["kd"]["aware"]["counts"]["word"]["es"]
        assert counts["sub"] == wrong, words


@pytest.mark.parametrize("options", [(), ("--score_case", "keep")])
def test_trn_files_are_of_the_scored_texts(project, options):
    """Aligned again, they give the counts of results.json."""
    rewrite(project, "multi", lambda text: text.replace("fr_1", "fr_1 un Deux trois"))
    built = run(*options)["systems"]["multi"]["aware"]["counts"]
    for unit, folder in (("word", "score_wer"), ("char", "score_cer")):
        for lang in ("es", "fr"):
            where = project / f"exp/multi/decode_aware/t_{lang}/{folder}"
            ref, hyp = (
                [
                    line.split("\t")[0]
                    for line in (where / name).read_text().splitlines()
                ]
                for name in ("ref.trn", "hyp.trn")
            )
            counts = count_errors(ref, hyp, "word").sum(axis=0).tolist()
            keys = ("sub", "del", "ins", "ref")
            assert counts == [built[unit][lang][key] for key in keys]


def test_missing_system_is_an_error_unless_skipped(project):
    with pytest.raises(ValueError, match="system full must be decoded aware, but got"):
        run(systems="multi kd full")
    built = run("--skip_missing", "true", systems="multi kd full")
    assert list(built["systems"]) == ["multi", "kd"]


@pytest.mark.parametrize("systems", ["kd", "multi kd"], ids=["unnamed", "skipped"])
def test_without_baseline_no_p_value_but_one_warning(project, caplog, systems):
    full = run()["systems"]["kd"]
    (project / "exp/multi").rename(project / "exp/other")
    built = run("--skip_missing", "true", systems=systems)["systems"]
    for mode in ("aware", "agnostic"):
        assert full[mode].pop("p_vs_multi") < 0.01
        assert built["kd"][mode].pop("p_vs_multi") is None
    assert built == {"kd": full}
    said = [text for text in caplog.messages if "p-value" in text]
    assert said == ["no p-values: baseline multi is not among the scored systems: kd"]


def test_several_baselines_the_first_is_shown(project, caplog):
    built = run("--baseline", "kd multi full")
    modes = {name: row["aware"] for name, row in built["systems"].items()}
    assert modes["kd"]["p_vs_kd"] is modes["multi"]["p_vs_multi"] is None
    assert modes["kd"]["p_vs_multi"] == modes["multi"]["p_vs_kd"] < 0.01
    assert built["meta"]["baseline"] == "kd"
    said = [text for text in caplog.messages if "p-value" in text]
    assert len(said) == 1 and "baseline full is not" in said[0]


@pytest.mark.parametrize("form", [["--command", "{}"], ["--command={}"]])
def test_recipe_command_is_named_once_and_first(project, form):
    command = "./run.sh --langs es\\ fr"
    plain = run("--about", "")["meta"]
    told = run("--about", "", *(word.format(command) for word in form))["meta"]
    assert told.pop("run") == command
    told["date"] = plain["date"]
    assert told == plain
    page = (project / "exp/RESULTS.md").read_text()
    assert f"- run: `{command}`\n- command: `python -m" in page
    assert page.count("run.sh") == 1


def test_page_has_no_absolute_path(project):
    options = ["--expdir", str(project / "exp"), "--results_md", str(project / "R.md")]
    about = f"backbone={project}/tiny text_policy=raw"
    run(*options, "--about", about, "--command", f"./run.sh --backbone {project}/tiny")
    for name in ("R.md", "exp/results.json"):
        assert str(project) not in (project / name).read_text()
    assert "- backbone: `tiny`" in (project / "R.md").read_text()


CHECK = ["--check", "exp/results.json"]


def test_results_are_scored_again_from_their_files(project, capsys):
    """With the options they were made with; one word more is a difference."""
    run("--samples", "50", "--seed", "3", "--score_case", "keep")
    before = Path("exp/results.json").read_bytes()
    capsys.readouterr()
    score.main(CHECK)
    assert capsys.readouterr().out == (
        "exp/results.json: all numbers are those of its files\n"
    )
    text = Path("exp/multi/decode_aware/t_es/text")
    text.write_text(text.read_text().replace("es_2", "es_2 Tres."))
    with pytest.raises(ValueError, match=r"differ: systems.multi.aware.wer.es: 100.0,"):
        score.main(CHECK)
    assert Path("exp/results.json").read_bytes() == before


def test_results_name_seeds_and_configurations_of_the_trainings(project):
    config = Path("exp/kd/config.yaml")
    config.write_text(f"seed: 7\noutput_dir: {Path.cwd()}/exp/kd\ntoken_list: [a]\n")
    first = run()["meta"]
    assert first["training_seeds"] == {"kd": 7} and first["seed"] == 0
    config.write_text("seed: 7\noutput_dir: exp/kd\n")
    second = run()["meta"]
    assert first["training_configs"] == second["training_configs"]
    config.write_text("seed: 7\noutput_dir: exp/kd\nlr: 1\n")
    assert run()["meta"]["training_configs"] != second["training_configs"]
