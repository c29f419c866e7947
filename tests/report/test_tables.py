"""RESULTS.md."""

import pytest

from espnet_lora_experts.report import results, tables

LANGS = ["es", "es", "zh"]
REFERENCES = ["uno dos", "tres cuatro", "你好"]
HYPOTHESES = ["uno dos", "tres", "你好吗"]


@pytest.fixture(scope="module")
def built():
    aware = results.Decoded(LANGS, REFERENCES, HYPOTHESES, rtf=0.25)
    agnostic = results.Decoded(LANGS, REFERENCES, REFERENCES, found=["es", "fr", "zh"])
    both = {"aware": aware, "agnostic": agnostic}
    return results.build(
        {
            "multi": results.System(1000, 3 * 2**20, 2**20, both),
            "mono": results.System(2000, 2**20, 2**20, {"aware": aware}),
        },
        {"date": "2025-01-01", "utterances": {"test": 3}},
    )


def cells(line):
    return line.strip("|").split("|")


def rows_of(table):
    head, _, *rows = table.splitlines()
    return [dict(zip(cells(head), cells(row), strict=True)) for row in rows]


def test_summary_has_a_row_per_system_of_the_mode(built):
    assert [r["system"] for r in rows_of(tables.summary(built, "aware"))] == [
        "multi",
        "mono",
    ]
    [row] = rows_of(tables.summary(built, "agnostic"))
    assert row["LID %"] == "75.0"
    assert row["avg [95 %]"] == "0.0 [0.0, 0.0]"


def test_summary_cells(built):
    multi, mono = rows_of(tables.summary(built, "aware"))
    assert (multi["es"], multi["zh (CER)"]) == ("25.0", "50.0")
    assert multi["avg [95 %]"].startswith("37.5 [")
    assert multi["p vs multi"] == "-"
    assert mono["p vs multi"] == "1.000"
    assert (mono["steps"], multi["trained Mi"]) == ("2,000", "3.00")
    assert multi["RTF"] == "0.250"
    assert "LID %" not in multi


def test_lid_is_told_by_language(built):
    [row] = rows_of(tables.lid_table(built))
    assert row == {"system": "multi", "es": "50.0", "zh": "100.0", "avg": "75.0"}
    [summary] = rows_of(tables.summary(built, "agnostic"))
    assert summary["LID %"] == row["avg"]


def test_lid_title_names_the_languages_that_count_as_one():
    found = ["zh", "zh", "es", "es"]
    texts = [""] * len(found)
    decoded = results.Decoded(["zh", "yue", "es", "ru"], texts, texts, found)
    systems = {"kd": results.System(0, 0, 0, {"agnostic": decoded})}
    [row] = rows_of(tables.lid_table(results.build(systems, {}, samples=10)))
    assert list(row) == ["system", "es", "ru", "yue = zh", "zh = yue", "avg"]
    assert list(row.values()) == ["kd", "100.0", "0.0", "100.0", "100.0", "75.0"]


def test_other_normalisations_stand_beside_the_scored_one(built):
    assert tables.other_table(built) == ""
    decoded = results.Decoded(["es"], ["uno dos"], ["uno dos"])
    raw = results.Decoded(["es"], ["Uno dos"], ["uno dos"])
    two, one = (
        {"kd": results.System(0, 0, 0, {mode: x for mode in ("aware", "agnostic")})}
        for x in (decoded, raw)
    )
    two["mono"] = results.System(0, 0, 0, {"aware": decoded})
    others = {"raw": {**one, "mono": two["mono"]}}
    found = results.build(two, {}, samples=10, other_texts=others)
    kd, mono = rows_of(tables.other_table(found))
    assert kd["agnostic, scored"] == "0.0 [0.0, 0.0]"
    assert kd["aware, raw"] == kd["agnostic, raw"] == "50.0 [50.0, 50.0]"
    assert (mono["aware, raw"], mono["agnostic, raw"]) == ("0.0 [0.0, 0.0]", "-")
    assert "## Other normalisations" in tables.render(found)


def test_espnet_form(built):
    word, char = tables.espnet_table(built, "WER"), tables.espnet_table(built, "CER")
    assert word.startswith("|dataset|Snt|Wrd|Corr|Sub|Del|Ins|Err|S.Err|\n|---|")
    assert "|multi/decode_aware/es|2|4|75.0|0.0|25.0|0.0|25.0|50.0|" in word
    assert "|mono/decode_aware/zh|1|2|100.0|0.0|0.0|50.0|50.0|100.0|" in char
    assert "/zh|" not in word
    assert len(char.splitlines()) == 2 + 2 * 3


def test_page_has_every_part_once(built):
    page = tables.render(built)
    assert page.startswith("# RESULTS\n\n## Environments\n- date: `2025-01-01`\n")
    assert "- utterances: `test 3`" in page
    titles = ["Language-aware", "Language-agnostic", "Language identification"]
    for title in (f"## {name}" for name in [*titles, "WER", "CER"]):
        assert page.count(title + "\n") == 1


def test_page_leaves_out_a_mode_that_no_system_has(built):
    only = {**built, "systems": {"mono": built["systems"]["mono"]}}
    page = tables.render(only)
    assert "Language-agnostic" not in page
    assert "Language identification" not in page
    assert tables.summary(only, "agnostic") == tables.lid_table(only) == ""
