"""Sections: the numbers that reach the tables and figures, and what is missing."""

import numpy as np
import pytest

from espnet_lora_experts.report.page import charts, models, records, scores
from espnet_lora_experts.report.page.models import States
from espnet_lora_experts.report.page.parts import colour, symbol, system_title
from espnet_lora_experts.report.page.projection import project, same_neighbours
from espnet_lora_experts.report.page.sources import Curve

LAYER = "model.{}.layers.{}.{}"


def test_the_table_has_every_system_and_marks_the_best(run):
    section = scores.table_section(run[0])
    summary, aware, agnostic = section.tables
    rows = {name: cells for name, _, cells in summary.rows}
    assert list(rows) == ["multi", "kd", "mono"]
    assert {len(cells) for cells in rows.values()} == {len(summary.head)}
    best = {name: [cell.best for cell in cells[:4]] for name, cells in rows.items()}
    assert best == {
        "multi": [False] * 4,
        "kd": [False, False, True, False],
        "mono": [True, False, False, False],
    }
    wer = run[0]["systems"]["mono"]["aware"]
    low, high = wer["ci95"]
    assert rows["mono"][0].text == f"{wer['avg_wer']:.1f}"
    assert rows["mono"][0].aside == f"[{low:.1f}, {high:.1f}]"
    assert rows["mono"][2].text == "-"
    assert [len(aware.rows), len(agnostic.rows)] == [3, 2]
    assert aware.head == ["es", "fr", "CER, average"]


def test_other_normalisations_are_a_table_of_their_own(run):
    assert len(scores.table_section(run[0]).tables) == 3
    systems = {name: dict(row) for name, row in run[0]["systems"].items()}
    also = {"wer": {}, "avg_wer": 12.34, "ci95": [10.0, 15.0]}
    systems["kd"]["aware"] = {**systems["kd"]["aware"], "other_texts": {"raw": also}}
    *_, table = scores.table_section({**run[0], "systems": systems}).tables
    rows = {name: [cell.text for cell in cells] for name, _, cells in table.rows}
    assert rows["kd"][1] == "12.3 [10.0, 15.0]" and rows["multi"][1] == "-"
    assert {len(cells) for cells in rows.values()} == {len(table.head)}


def test_each_language_has_a_panel_with_both_modes_on_one_scale(run):
    section = scores.language_section(run[0])
    titles = [chart.title for chart in section.charts]
    assert titles == ["Average of the languages", "Spanish (es)", "French (fr)"]
    ranges = {tuple(c.figure["layout"]["xaxis"]["range"]) for c in section.charts}
    highest = run[0]["systems"]["multi"]["aware"]["ci95_lang"]["es"][1]
    assert len(ranges) == 1 and ranges.pop()[1] > highest
    aware, agnostic = section.charts[1].figure["data"]
    systems = run[0]["systems"]
    assert list(aware["x"]) == [systems[n]["aware"]["wer"]["es"] for n in systems]
    assert len(agnostic["x"]) == 2
    low, high = systems["kd"]["aware"]["ci95_lang"]["es"]
    assert aware["x"][1] - aware["error_x"]["arrayminus"][1] == pytest.approx(low)
    assert aware["x"][1] + aware["error_x"]["array"][1] == pytest.approx(high)


def test_a_confusion_counts_what_was_found_of_each_language(run):
    section = scores.lid_section(*run)
    assert [chart.title for chart in section.charts] == ["multi", "kd"]
    multi, kd = (chart.figure["data"][0] for chart in section.charts)
    assert np.array(multi["z"]).tolist() == [[95, 5], [0, 100]]
    assert np.array(kd["z"]).tolist() == [[100, 0], [0, 100]]
    assert "1 of 20 (5.0 %)" in multi["customdata"][0][1]
    assert section.charts[0].aside.startswith("97.5 % right")


def test_experts_on_every_language(run):
    cross = {"es": {"es": 10.0, "fr": 50.0}, "fr": {"es": 60.0, "fr": 20.0}}
    figure = scores.cross_chart({**run[0], "cross": cross}).figure
    assert np.array(figure["data"][0]["z"]).tolist() == [[10, 50], [60, 20]]
    assert scores.cross_chart(run[0]) is None


def test_a_sweep_is_drawn_by_its_layers(run):
    systems = run[0]["systems"]
    section = scores.sweep_section({2: systems["kd"], 4: systems["multi"]})
    wer, lid = (chart.figure["data"] for chart in section.charts)
    for curve, mode in zip(wer, ("aware", "agnostic"), strict=True):
        assert list(curve["x"]) == [2, 4]
        assert list(curve["y"]) == [
            systems[n][mode]["avg_wer"] for n in ("kd", "multi")
        ]
    assert list(lid[0]["y"]) == [100, 97.5]


def test_fusion_weights_are_averaged_over_the_matrices_of_a_layer():
    weights = {
        LAYER.format("encoder", 1, "self_attn.q_proj"): np.array([0.2, 0.8]),
        LAYER.format("encoder", 1, "fc1"): np.array([0.4, 0.6]),
        LAYER.format("encoder", 0, "fc1"): np.array([0.5, 0.5]),
    }
    section = models.fusion_section({"mole": (["es", "ru"], weights)})
    assert [c.aside for c in section.charts] == [
        "mean of all matrices",
        "q_proj",
        "fc1",
    ]
    mean, query, _ = (chart.figure["data"][0] for chart in section.charts)
    np.testing.assert_allclose(mean["z"], [[50, 50], [30, 70]])
    np.testing.assert_allclose(query["z"], [[20, 80]])
    assert list(mean["y"]) == ["layer 0", "layer 1"]
    np.testing.assert_allclose(
        (mean["zmin"], mean["zmax"]), (20, 80)
    )  # fair in the middle


def test_expert_similarity_by_stack_and_by_layer():
    def cosines(x):
        return np.array([[1, x], [x, 1]])

    similarity = {
        LAYER.format("encoder", 0, "fc1"): cosines(0.2),
        LAYER.format("encoder", 0, "fc2"): cosines(np.nan),
        LAYER.format("encoder", 1, "fc1"): cosines(0.4),
        LAYER.format("decoder", 0, "encoder_attn.q_proj"): cosines(-0.5),
    }
    section = models.expert_section(["es", "ru"], similarity, None)
    encoder, decoder, layers = (chart.figure["data"] for chart in section.charts)
    np.testing.assert_allclose(encoder[0]["z"], cosines(0.3))
    np.testing.assert_allclose(decoder[0]["z"], cosines(-0.5))
    assert encoder[0]["zmin"] == -0.5
    np.testing.assert_allclose(layers[0]["y"], [0.2, 0.4])
    np.testing.assert_allclose(layers[1]["y"], [-0.5])


def test_a_key_of_no_layer_is_named():
    with pytest.raises(ValueError, match="must be ...encoder.layers.N...MATRIX.*'a.b'"):
        models.place("a.b")


@pytest.fixture(scope="module")
def states():
    """Two languages in two corners, twenty clips of each."""
    rng = np.random.default_rng(0)
    corners_D = np.eye(2, 8).repeat(20, axis=0)
    langs = ["es"] * 20 + ["ru"] * 20
    utts = [f"u{n}" for n in range(40)]
    return States(utts, langs, {"kd": corners_D + 0.1 * rng.normal(size=(40, 8))})


def test_states_of_a_language_are_drawn_together(states):
    section = models.states_section(states)
    (chart,) = section.charts
    assert chart.aside == "distilled student; 100 % beside their own language"
    es, ru = (np.stack([d["x"], d["y"]], axis=1) for d in chart.figure["data"])
    between = np.linalg.norm(es.mean(axis=0) - ru.mean(axis=0))
    assert between > 2 * np.linalg.norm(es - es.mean(axis=0), axis=1).mean()
    assert [key.text for key in section.keys] == ["Spanish (es)", "Russian (ru)"]


@pytest.mark.parametrize("count", [1, 2, 11, 12, 40])
def test_any_number_of_states_has_places_that_stay(states, count):
    some_ND = states.by_system["kd"][:count]
    places_N2 = project(some_ND)
    assert places_N2.shape == (count, 2) and np.isfinite(places_N2).all()
    np.testing.assert_array_equal(places_N2, project(some_ND))


def test_one_state_has_no_neighbour():
    assert same_neighbours(np.ones((1, 2)), ["es"]) == 0


def test_training_and_validation_are_drawn_over_steps():
    curves = {"kd": Curve(([1, 2], [3.0, 2.0]), ([2], [4.0]))}
    (chart,) = records.curves_section(curves).charts
    train, valid = chart.figure["data"]
    assert (list(train["x"]), list(train["y"])) == ([1, 2], [3, 2])
    assert (list(valid["x"]), list(valid["y"])) == ([2], [4])


@pytest.mark.parametrize(
    ("section", "said"),
    [
        (lambda: scores.lid_section({"systems": {}}, {}), "stage 9"),
        (lambda: scores.sweep_section({}), "sweep.sh conf/sweeps/merged_layers.txt"),
        (lambda: models.fusion_section({}), "stage 7"),
        (lambda: models.expert_section([], {}, None), "stage 5"),
        (lambda: models.states_section(States()), "stages 5 to 8"),
        (lambda: records.curves_section({}), "stages 5 to 8"),
        (lambda: records.worst_section({}), "stage 9"),
    ],
)
def test_what_is_not_there_says_who_makes_it(section, said):
    made = section()
    assert said in made.missing and made.missing.endswith(".")
    assert not made.charts and made.utterances is None


def test_colours_go_with_symbols():
    pairs = {(colour(n), symbol(n)) for n in range(8)}
    assert len(pairs) == 8


def test_any_system_has_a_title():
    assert system_title("kd_logits_only") == "student distilled from logits only"
    assert system_title("kd_r_32") == "distilled student: r_32"
    assert system_title("mine") == "mine"


def test_large_matrices_have_a_scale_instead_of_numbers():
    z = np.zeros((20, 20))
    names = [str(n) for n in range(20)]
    hover = [["" for _ in names] for _ in names]
    heat = charts.heatmap(names, names, z, hover, (0, 1), 0, ("x", "y"))["data"][0]
    assert heat["showscale"] and "texttemplate" not in heat
