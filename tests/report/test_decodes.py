"""Reading decoded folders, writing trn files."""

import pytest

from espnet_lora_experts.report import decodes


def write(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


@pytest.fixture
def test_set(tmp_path):
    write(tmp_path / "test/text", "es_1 ¡Uno, dos!", "zh_1 你好 。", "es_2 Tres")
    write(tmp_path / "test/utt2lang", "es_1 es", "zh_1 zh", "es_2 es")
    write(tmp_path / "test/utt2spk", "es_1 es", "zh_1 zh", "es_2 es")
    return decodes.read_test_set(tmp_path / "test")


def test_references_are_sorted_and_normalised(test_set):
    assert test_set.utts == ["es_1", "es_2", "zh_1"]
    assert test_set.texts == ["uno dos", "tres", "你好"]


def test_hypotheses_are_normalised_as_their_references(test_set, tmp_path):
    raw = decodes.read_test_set(tmp_path / "test", decodes.raw)
    assert raw.texts == ["¡Uno, dos!", "Tres", "你好 。"]
    write(tmp_path / "d/text", "zh_1 你 好", "es_2", "es_1 Uno!")
    assert decodes.read_decode(tmp_path / "d", raw, False).texts == [
        "Uno!",
        "",
        "你 好",
    ]
    assert decodes.read_decode(tmp_path / "d", test_set, False).texts[0] == "uno"


def test_hypotheses_may_be_empty_and_in_any_order(test_set, tmp_path):
    write(tmp_path / "d/text", "zh_1 你 好", "es_2", "es_1\tUno")
    write(tmp_path / "d/lang", "zh_1 zh", "es_2 fr", "es_1 es")
    write(tmp_path / "d/decode.json", '{"rtf": 0.5}')
    decode = decodes.read_decode(tmp_path / "d", test_set, agnostic=True)
    assert decode == decodes.Decode(["uno", "", "你好"], ["es", "fr", "zh"], 0.5)


def test_given_language_needs_no_lang_file(test_set, tmp_path):
    write(tmp_path / "d/text", "zh_1", "es_2", "es_1")
    decode = decodes.read_decode(tmp_path / "d", test_set, agnostic=False)
    assert decode == decodes.Decode(["", "", ""], None, None)
    with pytest.raises(FileNotFoundError, match="lang must exist"):
        decodes.read_decode(tmp_path / "d", test_set, agnostic=True)


def test_missing_and_unknown_utterances_are_counted_and_named(test_set, tmp_path):
    write(tmp_path / "d/text", "es_1 a", "es_9 b")
    with pytest.raises(
        ValueError,
        match=r"3 utterances .* got 2: 2 missing \['es_2', 'zh_1'\], 1 unknown",
    ):
        decodes.read_decode(tmp_path / "d", test_set, agnostic=False)


def test_trn_is_espnets(test_set, tmp_path):
    decodes.write_trn(tmp_path, test_set, ["uno", "", "你好"])
    ref, hyp = ((tmp_path / f"score_cer/{k}.trn").read_text() for k in ("ref", "hyp"))
    assert ref.splitlines()[0] == "u n o <space> d o s\t(es-es_1)"
    assert hyp.splitlines() == ["u n o\t(es-es_1)", "\t(es-es_2)", "你 好\t(zh-zh_1)"]
    assert "uno dos\t(es-es_1)" in (tmp_path / "score_wer/ref.trn").read_text()


def test_single_experts_need_a_language_and_two_passes_find_it():
    assert decodes.modes_of("mono") == ("aware",)
    assert decodes.modes_of("two_pass") == ("agnostic",)
    assert decodes.modes_of("kd") == ("aware", "agnostic")


@pytest.mark.parametrize("system", ["mono", "two_pass", "kd"])
def test_a_system_decoded_in_another_way_has_the_same_modes(system):
    for variant in (f"{system}@30s", f"{system}_r_8", f"{system}_r_8@30s"):
        assert decodes.modes_of(variant) == decodes.modes_of(system)
