"""The results dict."""

import doctest
import json

import numpy as np
import pytest

from espnet_lora_experts.report import errors, results, tables
from espnet_lora_experts.whisper import languages

LANGS = ["es"] * 6 + ["fr"] * 4 + ["zh"] * 2
REFERENCES = [f"a b c {n}" for n in range(10)] + ["你好世界", "你好"]
PERFECT = results.Decoded(LANGS, REFERENCES, REFERENCES)


def decoded(wrong, **options):
    """The references with a word more where ``wrong`` says."""
    pairs = enumerate(REFERENCES)
    texts = [text + (" x" if n in wrong else "") for n, text in pairs]
    return results.Decoded(LANGS, REFERENCES, texts, **options)


def system(**modes):
    return results.System(10, 2**20, 2**21, modes)


def test_rates_and_averages():
    built = results.build({"kd": system(aware=decoded({0, 6, 10}, rtf=0.5))}, {})
    row = built["systems"]["kd"]["aware"]
    assert row["wer"] == pytest.approx({"es": 100 / 24, "fr": 100 / 16, "zh": 200 / 6})
    assert row["cer"]["es"] == pytest.approx(100 * 2 / 42)
    assert row["wer"]["zh"] == row["cer"]["zh"]  # unspaced: characters
    assert row["avg_wer"] == pytest.approx(np.mean(list(row["wer"].values())))
    assert row["avg_cer"] == pytest.approx(np.mean(list(row["cer"].values())))
    assert row["ci95"][0] <= row["avg_wer"] <= row["ci95"][1]
    assert row["ci95_cer"][0] <= row["avg_cer"] <= row["ci95_cer"][1]
    assert set(row["ci95_lang"]) == {"es", "fr", "zh"}
    assert row["rtf"] == 0.5
    assert "lid_acc" not in row


def test_rate_of_a_language_is_that_of_its_utterances_alone():
    references, texts = REFERENCES[6:10], decoded({7}).hypotheses[6:10]
    alone = errors.rate(errors.count_errors(references, texts, "word"))
    built = results.build({"kd": system(aware=decoded({7}))}, {})
    assert built["systems"]["kd"]["aware"]["wer"]["fr"] == alone


def test_order_of_utterances_does_not_matter_to_rates():
    order = np.random.default_rng(0).permutation(len(LANGS))
    one = decoded({0, 3, 7, 11})
    lists = (one.langs, one.references, one.hypotheses)
    mixed = results.Decoded(*([items[n] for n in order] for items in lists))
    rows = [results.score(each, 100, 0)[0] for each in (one, mixed)]
    assert rows[0]["wer"] == rows[1]["wer"]
    assert rows[0]["counts"] == rows[1]["counts"]


def test_p_value_is_against_the_baseline_of_the_same_mode():
    built = results.build(
        {
            "multi": system(aware=decoded(set(range(8))), agnostic=PERFECT),
            "kd": system(aware=PERFECT, agnostic=PERFECT),
            "mono": system(aware=decoded(set(range(8)))),
        },
        {},
    )["systems"]
    assert built["multi"]["aware"]["p_vs_multi"] is None
    assert built["kd"]["aware"]["p_vs_multi"] < 0.01
    assert built["kd"]["agnostic"]["p_vs_multi"] == 1.0
    assert built["mono"]["aware"]["p_vs_multi"] == 1.0
    assert "agnostic" not in built["mono"]


def test_without_a_baseline_there_is_no_p_value():
    built = results.build({"kd": system(aware=PERFECT)}, {}, baseline="multi")
    assert built["systems"]["kd"]["aware"]["p_vs_multi"] is None


def test_identification_is_averaged_over_languages():
    found = ["es"] * 3 + ["fr"] * 7 + ["zh", "es"]
    row, _ = results.score(decoded(set(), found=found), 10, 0)
    assert row["lid_acc_lang"] == {"es": 50.0, "fr": 100.0, "zh": 50.0}
    assert row["lid_acc"] == pytest.approx(200 / 3)


def test_classes_of_lid_are_the_tokens_of_whisper_without_those_that_have_a_parent():
    rows = languages.TABLE.values()
    vocab = {row.token: n for n, row in enumerate(rows) if not row.parent}
    tokens = {code: languages.token_id(code, vocab) for code in languages.TABLE}
    classes = {code: results.lid_class(code) for code in languages.TABLE}
    assert len(set(classes.values())) == len(vocab)
    for code, token in tokens.items():
        assert tokens[classes[code]] == token
        assert languages.get(classes[code]).token in vocab


def identified(langs, found):
    texts = [""] * len(langs)
    return results.identification(results.Decoded(langs, texts, texts, found))


@pytest.mark.parametrize("listed", [["zh", "yue", "es"], ["yue", "zh", "es"]])
def test_order_of_languages_with_one_token_does_not_matter_to_lid(listed):
    """Of equal tokens, the one that is listed first is found for both languages."""
    langs = ["zh", "yue", "es", "es"]
    row = identified(langs, [listed[0], listed[0], "es", "zh"])
    assert row["lid_acc_lang"] == {"es": 50.0, "yue": 100.0, "zh": 100.0}
    swapped = identified(langs, ["zh", "yue", "es", "yue"])
    assert swapped == row


def test_all_empty_hypotheses_are_all_deletions():
    empty = results.Decoded(LANGS, REFERENCES, [""] * len(LANGS))
    row, averages = results.score(empty, 10, 0)
    assert row["avg_wer"] == row["avg_cer"] == 100.0
    assert (averages == 100.0).all()


def test_counts_add_up():
    row, _ = results.score(decoded({0, 1}), 10, 0)
    es = row["counts"]["word"]["es"]
    assert es == {"snt": 6, "sub": 0, "del": 0, "ins": 2, "ref": 24, "wrong": 2}


def test_results_are_json():
    built = results.build({"kd": system(aware=PERFECT)}, {"date": "today"})
    assert json.loads(json.dumps(built)) == built
    assert built["meta"] == {
        "date": "today",
        "baseline": "multi",
        "samples": 1000,
        "seed": 0,
    }
    assert built["systems"]["kd"]["steps"] == 10


def test_cross_table_is_scored_like_the_systems():
    """An expert that wrote what a system wrote has the system's rates."""
    decoded = results.Decoded(["es", "ru"], ["a b", "c d"], ["a x", "c d"])
    systems = {"multi": results.System(0, 0, 0, {"aware": decoded})}
    built = results.build(systems, {}, samples=10, cross={"es": decoded})
    assert built["cross"] == {"es": built["systems"]["multi"]["aware"]["wer"]}
    assert "|es|50.0|0.0|" in tables.cross_table(built)


def test_examples():
    assert doctest.testmod(results).failed == 0
