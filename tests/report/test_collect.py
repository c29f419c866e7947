"""Gathering decoded folders: what is read is what was written."""

import json
import logging
import shutil

import pytest

from espnet_lora_experts.report import collect, decodes
from espnet_lora_experts.report.kaldi import write_table

SIZE = {"steps": 5, "trained_params": 7, "deployed_params": 9}


def write_decode(folder, texts, langs, rtf):
    """A decoded folder, its lines not in the order of the references."""
    folder.mkdir(parents=True)
    write_table(folder / "text", dict(reversed(texts.items())))
    write_table(folder / "lang", dict(reversed(langs.items())))
    (folder / "decode.json").write_text(json.dumps({"rtf": rtf}))


@pytest.fixture
def test_sets():
    return [
        decodes.TestSet("one", ["a", "b"], ["es", "fr"], ["uno", "deux"], ["s", "t"]),
        decodes.TestSet("two", ["c"], ["ru"], ["три"], ["u"]),
    ]


@pytest.fixture
def kd(tmp_path):
    """A system that found b's language wrongly, decoded in both modes."""
    folder = tmp_path / "kd"
    for mode in decodes.MODES:
        one, two = (folder / f"decode_{mode}" / name for name in ("one", "two"))
        write_decode(one, {"a": "Uno!", "b": ""}, {"a": "es", "b": "es"}, 0.25)
        write_decode(two, {"c": mode}, {"c": "ru"}, 0.75)
    (folder / "system.json").write_text(json.dumps({**SIZE, "type": "single"}))
    return folder


def test_what_was_decoded_is_read_in_the_order_of_the_references(kd, test_sets):
    system = collect.read_system(kd, test_sets)
    assert list(system.modes) == ["aware", "agnostic"]
    for mode, decoded in system.modes.items():
        assert decoded.langs == ["es", "fr", "ru"]
        assert decoded.references == ["uno", "deux", "три"]
        assert decoded.hypotheses == ["uno", "", mode]
        assert decoded.rtf == 0.5
    assert system.modes["aware"].found is None
    assert system.modes["agnostic"].found == ["es", "es", "ru"]
    assert SIZE == {key: getattr(system, key) for key in SIZE}


def test_pool_is_the_sets_one_after_the_other(kd, test_sets):
    folders = [kd / "decode_agnostic" / test_set.name for test_set in test_sets]
    both = collect.pool(folders, test_sets, "agnostic")
    each = zip(folders, test_sets, strict=True)
    parts = [collect.pool([f], [t], "agnostic") for f, t in each]
    for name in ("langs", "references", "hypotheses", "found"):
        one, two = (getattr(part, name) for part in parts)
        assert getattr(both, name) == one + two


def test_reading_writes_the_trn_files_of_every_set(kd, test_sets):
    collect.read_system(kd, test_sets)
    trn = kd / "decode_aware/one/score_wer/hyp.trn"
    assert trn.read_text() == "uno\t(s-a)\n\t(t-b)\n"
    trn = kd / "decode_agnostic/two/score_cer/ref.trn"
    assert trn.read_text() == "т р и\t(u-c)\n"


def test_unmeasured_speed_is_none_and_measured_sets_are_averaged(kd, test_sets):
    (kd / "decode_aware/one/decode.json").unlink()
    assert collect.read_system(kd, test_sets).modes["aware"].rtf == 0.75
    (kd / "decode_aware/two/decode.json").unlink()
    assert collect.read_system(kd, test_sets).modes["aware"].rtf is None


def test_missing_mode_is_an_error_that_names_folders_and_fix(kd, test_sets):
    lost = kd / "decode_agnostic/two/text"
    lost.unlink()
    with pytest.raises(ValueError, match="kd must be decoded agnostic") as error:
        collect.read_system(kd, test_sets)
    assert f"got no text in {lost.parent}; decode it, leave it out" in str(error.value)
    assert "--skip_missing true" in str(error.value)


def test_skipping_leaves_out_the_mode_and_says_so(kd, test_sets, caplog):
    (kd / "decode_agnostic/two/text").unlink()
    with caplog.at_level(logging.WARNING):
        system = collect.read_system(kd, test_sets, skip_missing=True)
    assert list(system.modes) == ["aware"]
    assert caplog.messages == ["kd: no decode_agnostic, left out"]


@pytest.fixture
def expdir(kd):
    """Two systems, kd and multi."""
    shutil.copytree(kd, kd.with_name("multi"))
    return kd.parent


def test_systems_keep_the_order_of_their_names(expdir, test_sets):
    for names in (["kd", "multi"], ["multi", "kd"]):
        assert list(collect.read_systems(expdir, names, test_sets)) == names


def test_missing_system_is_an_error_unless_skipped(expdir, test_sets):
    names = ["multi", "full", "kd"]
    with pytest.raises(ValueError, match="system full must be decoded aware, but got"):
        collect.read_systems(expdir, names, test_sets)
    systems = collect.read_systems(expdir, names, test_sets, skip_missing=True)
    assert list(systems) == ["multi", "kd"]


def test_nothing_to_read_is_an_error_even_when_skipping(tmp_path, test_sets):
    with pytest.raises(ValueError, match="decoded systems, but got none; .*: full kd"):
        collect.read_systems(tmp_path, ["full", "kd"], test_sets, skip_missing=True)


def test_missing_hypotheses_are_an_error_even_when_skipping(kd, test_sets):
    write_table(kd / "decode_aware/one/text", {"a": "uno"})
    with pytest.raises(ValueError, match=r"1 missing \['b'\]"):
        collect.read_system(kd, test_sets, skip_missing=True)


def test_system_json_must_be_whole(kd, test_sets):
    (kd / "system.json").write_text('{"steps": 5}')
    with pytest.raises(ValueError, match="got none of trained_params deployed_params"):
        collect.read_system(kd, test_sets)
    (kd / "system.json").unlink()
    with pytest.raises(ValueError, match="kd/system.json must have steps"):
        collect.read_system(kd, test_sets)


def test_cross_holds_each_expert_that_decoded_every_set(kd, test_sets):
    for expert in ("es", "fr"):
        shutil.copytree(kd / "decode_aware", kd / f"decode_cross_{expert}")
    (kd / "decode_cross_fr/two/text").unlink()
    aware = collect.read_system(kd, test_sets).modes["aware"]
    assert collect.read_cross(kd, test_sets) == {"es": aware}
    assert collect.read_cross(kd.with_name("nowhere"), test_sets) == {}
