"""Stage 9: tables of every system and mode, in any number of jobs."""

import json
import shutil

import pytest

from espnet_lora_experts.bin import decode
from espnet_lora_experts.inference import Result, Speech2Text
from espnet_lora_experts.whisper.backbone import Backbone
from espnet_lora_experts.whisper.folder import save_system
from espnet_lora_experts.whisper.systems import Experts, MoLE, Single

LANGS = ["es", "ru"]
FACTS = ("steps", "trained_params", "deployed_params")
UTTS = {
    "c-ru": ("ru", 0.5, "да"),
    "a-es": ("es", 0.9, "uno"),
    "b-es": ("es", 0.2, "dos"),
}


@pytest.fixture(scope="module")
def project(folder_30s, add_random, write_data, tmp_path_factory):
    """A dump dir and three trained systems."""
    path = tmp_path_factory.mktemp("project")
    backbone = Backbone.from_pretrained(str(folder_30s))
    add_random(backbone.bank, [*LANGS, "multi"])
    systems = {
        "mono": Experts(LANGS),
        "multi": Single(LANGS, "multi"),
        "mole": MoLE(backbone, LANGS, 1),
    }
    for (name, system), n in zip(systems.items(), (3, 2, 4), strict=True):
        facts = dict(zip(FACTS, (n, 10 * n, 100 * n + 400), strict=True))
        save_system(path / "exp" / name, backbone, system, facts)
    write_data(path / "dump/test", UTTS)
    return path


@pytest.fixture
def run(project, folder_30s, tmp_path, monkeypatch):
    """Decodes into a fresh folder that has the project's systems."""
    exp = tmp_path / "exp"
    exp.mkdir()
    for system in (project / "exp").iterdir():
        (exp / system.name).mkdir()
        for part in system.iterdir():
            (exp / system.name / part.name).symlink_to(part)

    def run(systems, *options):
        cmd = ["--expdir", str(exp), "--systems", systems, "--langs", " ".join(LANGS)]
        cmd += ["--data_root", str(project / "dump"), "--backbone", str(folder_30s)]
        decode.main([*cmd, *options])
        return exp

    run.exp = exp
    return run


def tables(folder):
    return {name: (folder / name).read_text("utf-8") for name in decode.TABLES}


@pytest.mark.parametrize(
    "system, modes",
    [
        ("vanilla", {"aware", "agnostic"}),
        ("multi", {"aware", "agnostic"}),
        ("mole", {"aware", "agnostic"}),
        ("mono", {"aware"}),
        ("two_pass", {"agnostic"}),
    ],
)
def test_writes_the_tables_of_each_mode(run, system, modes):
    exp = run(system)
    made = {p.name for p in (exp / system).glob("decode_*")}
    assert made == {f"decode_{mode}" for mode in modes}
    for folder in (exp / system / name / "test" for name in made):
        whole = tables(folder)
        for text in whole.values():
            assert [line.split()[0] for line in text.splitlines()] == sorted(UTTS)
        assert {x.split()[1] for x in whole["lang"].splitlines()} <= set(LANGS)
        assert all(float(x.split()[1]) < 0 for x in whole["score"].splitlines())
        assert any(len(x.split()) > 1 for x in whole["token"].splitlines())
        assert (folder / "output.1/1best_recog/text").exists()
        facts = json.loads((folder / "decode.json").read_text())
        assert facts["audio_s"] == pytest.approx(1.6)
        assert facts["rtf"] == pytest.approx(facts["s"] / 1.6)


def test_aware_takes_the_languages_of_utt2lang(run):
    exp = run("multi mono", "--modes", "aware")
    for system in ("multi", "mono"):
        lines = (exp / system / "decode_aware/test/lang").read_text().splitlines()
        assert lines == ["a-es es", "b-es es", "c-ru ru"]


def test_tables_are_what_the_system_says(run, project):
    folder = run("mole") / "mole/decode_agnostic/test"
    clips = [project / f"dump/test/{utt}.flac" for utt in sorted(UTTS)]
    results = Speech2Text.from_pretrained(project / "exp/mole")(clips)
    rows = [*zip(sorted(UTTS), results, strict=True)]
    expected = {
        "score": [f"{utt} {r.score:.4f}" for utt, r in rows],
        "lang": [f"{utt} {r.lang}" for utt, r in rows],
        "token": [f"{utt} {' '.join(r.tokens)}".strip() for utt, r in rows],
    }
    for name, lines in expected.items():
        assert (folder / name).read_text("utf-8").split("\n")[:-1] == lines


def test_modes_decoded_together_equal_each_by_itself(run):
    """What one mode remembers of another is what it would say."""
    (run.exp / "two_pass").mkdir()
    shutil.copy(run.exp / "mono/system.json", run.exp / "two_pass")
    systems = "vanilla mono two_pass multi mole mole@top2 two_pass@mole"
    exp = run(systems, "--cross")
    together = {path: tables(path) for path in exp.glob("*/decode_*/test")}
    assert len(together) == 4 * 2 + 1 + 2 + len(LANGS)
    for path, whole in together.items():
        shutil.rmtree(path)
        mode = path.parent.name.removeprefix("decode_")
        crossed = ["--cross"] if mode.startswith(decode.CROSS) else []
        run(path.parents[1].name, "--modes", mode, *crossed)
        assert tables(path) == whole


def test_no_clip_is_decoded_twice(run, monkeypatch):
    decoded, call = [], Speech2Text.__call__

    def counted(self, speech, *args, **kwargs):
        decoded.append(len(speech))
        return call(self, speech, *args, **kwargs)

    monkeypatch.setattr(Speech2Text, "__call__", counted)
    run("mono", "--cross")
    assert decoded == [3, 1, 2]  # aware, then each expert on the other language


@pytest.mark.parametrize("nj", [2, 3, 5])  # 5: more jobs than utterances
def test_jobs_merged_equal_one_job(run, nj):
    folder = run("multi") / "multi/decode_agnostic/test"
    whole = tables(folder)
    shutil.rmtree(folder)
    options = ["--modes", "agnostic", "--nj", str(nj)]
    for job in range(1, nj + 1):
        run("multi", *options, "--job", str(job))
        assert (folder / f"output.{job}/decode.json").exists()
        assert not (folder / "text").exists()
    run("multi", *options, "--job", "0")
    assert tables(folder) == whole


def test_merging_names_the_jobs_that_have_not_finished(run):
    run("multi", "--modes", "aware", "--nj", "2", "--job", "1")
    with pytest.raises(FileNotFoundError, match=r"but \['.*output.2'\] have not"):
        run("multi", "--modes", "aware", "--nj", "2", "--job", "0")


def test_skip_done_keeps_what_is_decoded(run):
    exp = run("vanilla", "--modes", "aware")
    text = exp / "vanilla/decode_aware/test/text"
    text.write_text("kept\n")
    run("vanilla multi", "--modes", "aware", "--skip_done")
    assert text.read_text() == "kept\n"
    assert (exp / "multi/decode_aware/test/text").exists()
    run("vanilla", "--modes", "aware")
    assert text.read_text() != "kept\n"


def test_a_padded_system_is_one_beside_the_natural_one(run):
    exp = run("multi multi@30s", "--modes", "aware")
    natural, padded = (exp / x / "decode_aware/test" for x in ("multi", "multi@30s"))
    assert tables(natural)["score"] != tables(padded)["score"]
    sizes = [
        json.loads((x / "../../system.json").read_text()) for x in (natural, padded)
    ]
    assert sizes[0] != sizes[1] == {**sizes[0], "type": "padded"}


def sizes(exp, name):
    what = json.loads((exp / name / "system.json").read_text())
    return {key: what.get(key) for key in ("type", *FACTS)}


def test_several_experts_are_a_way_to_decode_a_mole(run):
    exp = run("mole mole@top2", "--modes", "aware agnostic")
    hard, soft = (exp / x for x in ("mole", "mole@top2"))
    for mode, alike in (("aware", True), ("agnostic", False)):
        scores = [tables(x / f"decode_{mode}/test")["score"] for x in (hard, soft)]
        assert (scores[0] == scores[1]) == alike
    assert sizes(exp, "mole@top2") == {**sizes(exp, "mole"), "type": "top_k"}


def test_any_system_finds_the_language_for_two_passes(run, project):
    (run.exp / "two_pass").mkdir()
    shutil.copy(run.exp / "mono/system.json", run.exp / "two_pass")
    exp = run("two_pass@mole mole")
    found, expected = (
        exp / x / "decode_agnostic/test" for x in ("two_pass@mole", "mole")
    )
    langs = tables(found)["lang"]
    assert langs == tables(expected)["lang"]
    assert not (exp / "two_pass@mole/decode_aware").exists()
    clips = [project / f"dump/test/{utt}.flac" for utt in sorted(UTTS)]
    codes = [line.split()[1] for line in langs.splitlines()]
    results = Speech2Text.from_pretrained(project / "exp/mono")(clips, codes)
    scores = [f"{u} {r.score:.4f}" for u, r in zip(sorted(UTTS), results, strict=True)]
    assert tables(found)["score"].splitlines() == scores
    both = sizes(exp, "two_pass@mole")
    assert both == {"type": "experts", "steps": 7, "trained_params": 70} | {
        "deployed_params": 700 + 40
    }


def test_who_finds_the_language_speaks_for_itself_and_experts_for_all(run):
    """What is remembered of one two_pass is no other's, but what its expert says is."""
    names = ("two_pass", "two_pass@kd", "two_pass@mole", "two_pass@30s", "two_pass_a")
    tasks = [decode.Task(name, "agnostic", run.exp, run.exp) for name in names]
    assert len({task.voice(None) for task in tasks}) == 5
    told = [task.voice("es") for task in tasks]
    assert told[0] == told[1] == told[2] == ("mono", "es")
    assert told[3:] == [("mono@30s", "es"), ("mono_a", "es")]
    soft = decode.Task("mole@top2", "agnostic", run.exp, run.exp)
    assert (soft.voice(None), soft.voice("es")) == (("mole@top2", None), ("mole", None))


def test_experts_of_a_tag_have_their_own_two_passes(run):
    task = decode.Task("two_pass_r_8", "agnostic", run.exp, run.exp)
    assert task.trained == run.exp / "mono_r_8" and task.finder is None


@pytest.mark.parametrize(
    ("system", "said"),
    [
        ("mole@beam", "must be NAME@30s, .* but got mole@beam"),
        ("mole@topmost", "must be NAME@30s, .* but got mole@topmost"),
        ("multi@top2", "must be a MoLE, .* but multi is of type single"),
        ("mole@top9", r"must be 1 to 2 \(languages\), but got 9"),
    ],
)
def test_an_unknown_way_is_named(run, system, said):
    with pytest.raises(ValueError, match=said):
        run(system)


@pytest.mark.parametrize("changed", ["mono", "mole", "multi"])
def test_skip_done_knows_both_passes(run, project, changed):
    (run.exp / "two_pass").mkdir()
    shutil.copy(run.exp / "mono/system.json", run.exp / "two_pass")
    exp = run("two_pass@mole")
    text = exp / "two_pass@mole/decode_agnostic/test/text"
    text.unlink()
    what = (exp / changed / "system.json").read_text()
    (exp / changed / "system.json").unlink()
    (exp / changed / "system.json").write_text(what + " ")
    run("two_pass@mole", "--skip_done")
    assert text.exists() == (changed != "multi")


def test_an_utterance_without_language_is_named(run, project, tmp_path):
    shutil.copytree(project / "dump", tmp_path / "dump")
    (tmp_path / "dump/test/utt2lang").write_text("a-es es\nb-es es\n")
    with pytest.raises(ValueError, match="utt2lang .*1 missing .*c-ru"):
        run("multi", "--data_root", str(tmp_path / "dump"))


def test_a_transcript_is_one_line(tmp_path):
    """Whisper's vocabulary has newlines and other separators in it."""
    said = Result("uno\ndos\u2028\x85 tres\r", "es", {}, -1.0, ["a", "Ċ"])
    decode.write_tables(tmp_path / "output.1/1best_recog", ["u"], [said])
    (tmp_path / "output.1/decode.json").write_text('{"s": 1, "audio_s": 2}')
    decode.merge(tmp_path, 1, "")
    assert (tmp_path / "text").read_text("utf-8") == "u uno dos tres\n"


def test_needs_a_finished_training(run):
    with pytest.raises(FileNotFoundError, match="must be a system's folder"):
        run("student")


def test_crossed_expert_is_its_own_language_s_expert(run):
    """On its own language it says what mono says; on another, what it says itself."""
    exp = run("mono", "--cross")
    own = tables(exp / "mono/decode_aware/test")["token"].splitlines()
    for code in LANGS:
        crossed = tables(exp / f"mono/decode_cross_{code}/test")["token"].splitlines()
        pairs = zip(sorted(UTTS), own, crossed, strict=True)
        same = {utt: a == b for utt, a, b in pairs}
        assert all(same[utt] for utt, (lang, *_) in UTTS.items() if lang == code)
        assert not all(same.values())


@pytest.mark.parametrize(
    "change", ["weights", "options", "utterances", "audio", "nothing"]
)
def test_skip_done_decodes_again_what_would_be_another(run, project, tmp_path, change):
    shutil.copytree(project / "dump", tmp_path / "dump")
    options = ["--modes", "aware", "--data_root", str(tmp_path / "dump"), "--skip_done"]
    exp = run("multi", *options)
    text = exp / "multi/decode_aware/test/text"
    text.unlink()
    if change == "weights":
        source = project / "exp/mono/experts/es"
        (exp / "multi/experts").unlink()
        shutil.copytree(source, exp / "multi/experts/multi")
    if change == "options":
        options.append("--beam_size=2")
    if change == "utterances":
        for name in ("wav.scp", "utt2lang"):
            lines = (tmp_path / "dump/test" / name).read_text().splitlines()
            (tmp_path / "dump/test" / name).write_text(f"{lines[0]}\n")
    if change == "audio":
        wavs = tmp_path / "dump/test/wav.scp"
        wavs.write_text(wavs.read_text().replace("a-es.flac", "b-es.flac"))
    run("multi", *options)
    assert text.exists() == (change != "nothing")


def test_every_option_of_decoding_arrives(project, folder_30s):
    options = {"autocast": "bfloat16", "batch_seconds": 7.0, "beam_size": 3}
    options |= {"length_penalty": 0.5, "max_tokens": 9, "maxlenratio": 0.25}
    options["no_repeat_ngram_size"] = 3
    given = [f"--{name}={value}" for name, value in options.items()]
    cmd = ["--systems", "multi", "--langs", "es ru", "--expdir", str(project / "exp")]
    args = decode.get_parser().parse_args([*cmd, *given])
    task = decode.Task("multi", "aware", project / "dump/test", args.expdir)
    speech2text = decode.load(task, Backbone.from_pretrained(str(folder_30s)), args)
    arrived = vars(speech2text) | vars(speech2text.recognizer.options)
    assert {name: arrived[name] for name in options} == options
