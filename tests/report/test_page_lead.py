"""Who won: the lowest average, its distance to the next, and whether that is chance."""

import pytest

from espnet_lora_experts.report.page.lead import wins


def test_the_winner_of_each_mode_and_its_distance_to_the_next(run):
    aware, agnostic = wins(*run)
    assert (aware.mode, aware.system, aware.rival) == ("aware", "mono", "kd")
    assert aware.wer == pytest.approx(5.0)
    assert aware.ahead == pytest.approx(15.0)
    low, high = aware.ahead_interval
    assert 0 < low < 15 < high
    assert aware.p < 0.05 and aware.verdict == "more than chance"
    assert (agnostic.system, agnostic.rival) == ("kd", "multi")
    assert agnostic.p > 0.05 and agnostic.verdict == "may be chance"


def test_interval_and_p_are_those_of_the_results(run):
    scored, decoded = run
    only = {
        "meta": scored["meta"],
        "systems": {n: scored["systems"][n] for n in ("multi", "kd")},
    }
    aware, _ = wins(only, decoded)
    assert aware.interval == scored["systems"]["kd"]["aware"]["ci95"]
    assert aware.p == scored["systems"]["kd"]["aware"]["p_vs_multi"]


def test_without_texts_there_is_the_distance_alone(run):
    aware, _ = wins(run[0], {})
    assert aware.ahead == pytest.approx(15.0)
    assert (aware.ahead_interval, aware.p, aware.verdict) == (None, None, "")


def test_one_system_wins_against_nobody(run):
    scored, decoded = run
    only = {"meta": scored["meta"], "systems": {"mono": scored["systems"]["mono"]}}
    (win,) = wins(only, decoded)
    assert (win.system, win.rival) == ("mono", "")
