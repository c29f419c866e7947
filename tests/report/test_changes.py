"""Before and after: the same utterances, the same draws, new languages apart."""

import numpy as np
import pytest

from espnet_lora_experts.report import changes, results, tables
from espnet_lora_experts.report.results import Decoded, System

OLD = {"es": ["uno dos", "tres", "cinco"], "ru": ["da net", "tri"]}
NEW = {"be": ["tak", "ne adzin"], **OLD}  # sorts before the old ones


def decoded(langs, wrong=(), found=None):
    """References of some languages; ``wrong`` ones say nothing."""
    pairs = [(lang, text) for lang in langs for text in NEW[lang]]
    texts = ["" if text in wrong else text for _, text in pairs]
    true = [lang for lang, _ in pairs]
    heard = None if found is None else [found.get(x, x) for x in true]
    return Decoded(true, [text for _, text in pairs], texts, heard)


def system(steps, **modes):
    return System(steps, 7, 9, modes)


@pytest.fixture
def compared():
    old = system(
        10,
        aware=decoded(OLD, wrong=["tres"]),
        agnostic=decoded(OLD, found={"ru": "es"}),
    )
    new = system(
        2,
        aware=decoded(NEW, wrong=["tri", "tak"]),
        agnostic=decoded(NEW, found={"be": "ru"}),
    )
    return changes.compare({"mole": old, "kd": old}, {"mole": new, "mono": new}, 50)


def test_each_old_language_has_both_sides_and_a_new_one_has_after(compared):
    assert list(compared) == ["mole"]
    assert compared["mole"]["steps"] == {"before": 10, "after": 2}
    rows = compared["mole"]["aware"]
    assert list(rows) == ["es", "ru", "avg", "be"]
    assert (rows["es"]["before"], rows["es"]["after"]) == (25.0, 0.0)
    assert rows["ru"]["change"] == pytest.approx(100 / 3)
    assert rows["avg"]["change"] == pytest.approx((100 / 3 - 25) / 2)
    assert rows["be"]["after"] == pytest.approx(100 / 3)
    assert "before" not in rows["be"] and "p" not in rows["be"]
    assert 0 < rows["es"]["p"] < 1


def test_intervals_of_the_average_are_of_all_languages(compared):
    """Before only es has errors, after only ru: the average is half of theirs."""
    rows = compared["mole"]["aware"]
    for side, lang in (("before", "es"), ("after", "ru")):
        half = np.array(rows[lang][f"ci95_{side}"]) / 2
        assert rows["avg"][f"ci95_{side}"] == pytest.approx(half) and half.any()


def test_unspaced_languages_count_letters():
    text = Decoded(["zh"], ["你好"], ["你"], None)
    rows = changes.compare({"kd": system(1, aware=text)}, {"kd": system(1, aware=text)})
    assert rows["kd"]["aware"]["zh"]["before"] == 50.0


def test_accuracies_are_of_the_old_languages_and_the_new(compared):
    rows = compared["mole"]["agnostic"]
    assert (rows["ru"]["lid_before"], rows["ru"]["lid_after"]) == (0.0, 100.0)
    assert (rows["avg"]["lid_before"], rows["avg"]["lid_after"]) == (50.0, 100.0)
    assert rows["be"]["lid_after"] == 0.0
    assert compared["mole"]["aware"]["ru"]["lid_after"] is None


def test_what_did_not_change_has_no_interval_and_no_p(compared):
    """The draws are paired, though the new language sorts before the old ones."""
    old = system(10, aware=decoded(OLD, wrong=["tres", "tri"]))
    new = system(2, aware=decoded(NEW, wrong=["tres", "tri"]))
    rows = changes.compare({"kd": old}, {"kd": new}, 50)["kd"]["aware"]
    for lang in (*OLD, "avg"):
        assert rows[lang]["ci95_change"] == [0.0, 0.0] and rows[lang]["p"] == 1.0
        assert rows[lang]["ci95_before"] == rows[lang]["ci95_after"]
    assert np.ptp(rows["es"]["ci95_before"]) > 0


def test_the_table_has_a_row_for_each_language(compared):
    table = tables.changes_table({"changes": compared})
    assert len(table.splitlines()) == 2 + 2 * 4
    assert "|mole|aware|es|25.0 [" in table and "|-|-|-|10|2|" in table
    assert "|mole|agnostic|be|-|0.0 [0.0, 0.0]|-|-|-|0.0|10|2|" in table
    built = results.build({"mole": system(1, aware=decoded(OLD))}, {})
    assert "Before and after" not in tables.render(built)
    assert "## Before and after" in tables.render({**built, "changes": compared})
