"""Sweeps' files and the tables of what their variants gave."""

import pytest

from espnet_lora_experts.report.sweeps import read_sweep, reference, table

FILE = """# How deep?
# A second comment is none of the table's business.

mole L1_25  --model_conf merged_layers=0.25 --optim_conf lr=3.0e-3
mole delta  --model_conf combination=delta   # the exact average
mole@top2   # two experts
mono
"""
NAMES = (
    "multi multi_n_60 mono mono_n_60 mole mole_L1_2 mole_L1_25 mole@top2 "
    "two_pass two_pass@kd kd kd_logits_only kd_logits_only@30s"
)


def test_a_file_says_what_each_system_is():
    sweep = read_sweep(FILE)
    assert sweep.title == "How deep?"
    assert sweep.what == {
        "mole_L1_25": "merged_layers=0.25 lr=3.0e-3",
        "mole_delta": "the exact average",
        "mole@top2": "two experts",
        "mono": "",
    }


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("multi", ""),
        ("multi_n_60", "multi"),
        ("mono_n_60", "multi_n_60"),
        ("mono", "multi"),
        ("mole_L1_25", "mole"),
        ("mole@top2", "mole"),
        ("two_pass@kd", "two_pass"),
        ("two_pass", "multi"),
        ("kd", "multi"),
        ("kd_logits_only@30s", "kd_logits_only"),
    ],
)
def test_each_system_has_one_that_it_is_compared_with(name, other):
    assert reference(name, dict.fromkeys(NAMES.split())) == other


def test_a_table_has_a_row_for_each_system_with_what_it_is_compared_with():
    given = {
        "avg_wer": 34.04,
        "ci95": [28.0, 41.0],
        "p_vs_multi": 0.5,
        "p_vs_mole": 0.04,
    }
    found = {**given, "avg_wer": 36.06, "lid_acc": 95.83}
    row = {"steps": 1234, "aware": given, "agnostic": found}
    systems = {"multi": row, "mole": row, "mole_L1_25": row, "mono": {**row}}
    del systems["mono"]["agnostic"]
    results = {"meta": {"utterances": {"dev": 90, "dev2": 6}}, "systems": systems}
    title, _, head, _, multi, mole, deep, mono = table(
        read_sweep(FILE), results
    ).splitlines()
    assert title == "How deep? (96 utterances):"
    assert head.startswith("|system|what|given [95 %]|p|not given [95 %]|p|LID %|")
    rate, other = "34.0 [28.0, 41.0]", "36.1 [28.0, 41.0]"
    assert multi == f"|multi|the default|{rate}||{other}||95.8|1,234||"
    assert mole == f"|mole|the default|{rate}|0.500|{other}|0.500|95.8|1,234|multi|"
    what = "merged_layers=0.25 lr=3.0e-3"
    assert deep == f"|mole_L1_25|{what}|{rate}|0.040|{other}|0.040|95.8|1,234|mole|"
    assert mono == f"|mono||{rate}|0.500|-||-|1,234|multi|"
