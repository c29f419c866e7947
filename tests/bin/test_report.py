"""The command line of the page: small real systems in, one file out."""

import json
import re
import shutil

import numpy as np
import pytest
import torch

from espnet_lora_experts.bin import cli, report, score
from espnet_lora_experts.whisper.backbone import Backbone
from espnet_lora_experts.whisper.description import write_description
from espnet_lora_experts.whisper.folder import describe, load_system, save_system
from espnet_lora_experts.whisper.systems import Experts, MoLE, Single, System

LANGS = ["es", "ru"]
SIZE = {"steps": 1, "trained_params": 2, "deployed_params": 3}
UTTS = {
    f"{lang}_{n}": (lang, 0.3 + 0.1 * n, f"uno dos {n}")
    for lang in LANGS
    for n in range(3)
}


@pytest.fixture(scope="module")
def made(folder_30s, add_random, write_data, write_table, tmp_path_factory):
    """A run with four systems, decoded and scored."""
    root = tmp_path_factory.mktemp("run")
    data = write_data(root / "raw/test", UTTS)
    backbone = Backbone.from_pretrained(str(folder_30s))
    add_random(backbone.bank, [*LANGS, "student"])
    mole = MoLE(backbone, LANGS, merged_layers=1)
    torch.nn.init.normal_(mole.fusion.V_IN, generator=torch.Generator().manual_seed(0))
    systems = {
        "mono": Experts(LANGS),
        "mole": mole,
        "kd": Single(LANGS, "student"),
    }
    for name, system in systems.items():
        save_system(root / "exp" / name, backbone, system, SIZE)
    vanilla = {**describe(backbone, System(LANGS)), "type": "vanilla", **SIZE}
    write_description(root / "exp/vanilla", vanilla)
    for name in ("vanilla", *systems):
        for mode in ("aware", "agnostic"):
            folder = root / "exp" / name / f"decode_{mode}/test"
            folder.mkdir(parents=True)
            texts = {utt: f"{row[2]} {name}" for utt, row in UTTS.items()}
            write_table(folder / "text", texts)
            shutil.copy(data / "utt2lang", folder / "lang")
    options = ["--expdir", root / "exp", "--data_root", root / "raw"]
    score.main([*map(str, options), "--output", str(root / "exp"), "--baseline", "kd",
                "--systems", "vanilla mono mole kd"])  # fmt: skip
    return root


@pytest.fixture
def root(made, tmp_path):
    """A copy of the run whose wav.scp names its own clips."""
    copy = shutil.copytree(made, tmp_path / "run")
    scp = copy / "raw/test/wav.scp"
    scp.write_text(scp.read_text().replace(str(made), str(copy)))
    return copy


def run(root, *options):
    """The page that the command writes."""
    expdir, data = str(root / "exp"), str(root / "raw")
    path = report.main(["--expdir", expdir, "--data_root", data, *options])
    return path.read_text(encoding="utf-8")


def content(page, id):
    """What a script of JSON holds."""
    found = re.search(f'<script type="application/json" id="{id}">(.*?)</script>', page)
    return json.loads(found[1])


def sections(page):
    return {key.partition("-")[0] for key in content(page, "figures")}


def test_everything_that_is_there_is_shown(root):
    page = run(root)
    shown = {"languages", "lid", "states", "experts", "fusion"}
    assert sections(page) == shown
    assert page.count("Left out.") == 2  # no sweep, no TensorBoard
    assert set(content(page, "clips")) <= set(UTTS)
    assert page.count("<audio") == 4 * 5  # of six utterances, --worst 5


def test_fusion_weights_are_those_of_the_model(root):
    page = run(root, "--clips_per_language", "0")
    _, mole, _ = load_system(root / "exp/mole")
    rows = [
        content(page, "figures")[f"fusion-{n}"]["data"][0]["z"] for n in range(1, 7)
    ]
    alpha_IN = 100 * mole.fusion.alpha_IN.detach().numpy()
    found = sorted(row[0] for row in rows)
    np.testing.assert_allclose(found, sorted(alpha_IN.tolist()), rtol=1e-5)
    assert "states" not in sections(page)


def test_states_are_kept_until_the_system_changes(root):
    first = content(run(root), "figures")["states-1"]
    files = {path: path.stat().st_mtime_ns for path in root.rglob("encoder_states.npz")}
    assert {path.parent.name for path in files} == {"vanilla", "mono", "mole", "kd"}
    backbone, student, what = load_system(root / "exp/kd")
    for _, parameter in backbone.bank.parameters_of("student"):
        parameter.data.mul_(1.5)
    save_system(root / "exp/kd", backbone, student, SIZE)
    assert content(run(root), "figures")["states-1"] == first
    changed = {p.parent.name for p, t in files.items() if p.stat().st_mtime_ns != t}
    assert changed == {"kd"}


def test_experts_are_told_the_language(root):
    run(root)
    with np.load(root / "exp/mono/encoder_states.npz") as kept:
        told_ND = kept["states"]
    backbone, _, _ = load_system(root / "exp/mono")
    clips = [report.read_clip(root / f"raw/test/{utt}.flac") for utt in sorted(UTTS)]
    for rows, lang in (([0, 1, 2], "es"), ([3, 4, 5], "ru")):
        own_ND = report.mean_states(
            backbone, Single(LANGS, lang), [clips[i] for i in rows]
        )
        np.testing.assert_allclose(told_ND[rows], own_ND, atol=1e-5)


def test_clips_that_are_gone_or_broken_have_no_player(root, caplog):
    clips = sorted((root / "raw/test").glob("*.flac"))
    clips[0].unlink()
    clips[1].write_bytes(b"no audio")
    page = run(root, "--worst", "6")
    assert set(content(page, "clips")) == set(UTTS) - {x.stem for x in clips[:2]}
    assert page.count("<audio") == 4 * 4
    assert f"{clips[1]} must be a readable audio file" in caplog.text
    (root / "raw/test/wav.scp").unlink()
    page = run(root)
    assert "<audio" not in page and "states" not in sections(page)


def test_without_data_or_models_the_scores_remain(root, caplog):
    shutil.rmtree(root / "raw")
    for folder in root.glob("exp/*/experts"):
        shutil.rmtree(folder)
    page = run(root)
    assert sections(page) == {"languages"}
    assert page.count("Left out.") == 7
    assert "raw has no text of test" in caplog.text
    assert "not looked into" in caplog.text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "must exist, but does not; stage 10"),
        ("{", "must be whole JSON, but got"),
    ],
    ids=["missing", "broken"],
)
def test_without_results_the_command_ends_with_what_to_do(tmp_path, content, said):
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    with pytest.raises(SystemExit, match=rf"^error: .*results\.json {said}"):
        cli.run(lambda: report.main(["--expdir", str(tmp_path)]))
    assert not (tmp_path / "report.html").exists()


def test_clips_are_taken_evenly_from_each_language():
    known = {f"{lang}_{n}": lang for lang in LANGS for n in range(9)}
    assert report.spread(known, 3) == [f"{x}_{n}" for x in LANGS for n in (0, 4, 8)]
    assert set(report.spread(known, 20)) == set(known)
    assert report.spread(known, 0) == report.spread({}, 5) == []
