"""Counts, rates, intervals."""

import doctest
import shutil
import subprocess

import jiwer
import numpy as np
import pytest

from espnet_lora_experts.report import decodes, errors

WORDS = ["uno", "dos", "tres", "un", "o"]


def sentences(count, seed):
    """Random references and hypotheses, some of them empty."""
    random = np.random.default_rng(seed)
    lengths = random.integers(0, 6, size=(2, count))
    return [[" ".join(random.choice(WORDS, n)) for n in row] for row in lengths]


def test_rate_is_jiwers():
    references, hypotheses = sentences(200, seed=0)
    words = errors.count_errors(references, hypotheses, "word")
    chars = errors.count_errors(references, hypotheses, "char")
    assert errors.rate(words) == pytest.approx(100 * jiwer.wer(references, hypotheses))
    assert errors.rate(chars) == pytest.approx(100 * jiwer.cer(references, hypotheses))


@pytest.mark.parametrize("unit", ["word", "char"])
def test_counts_of_a_set_are_those_of_its_utterances(unit):
    references, hypotheses = sentences(20, seed=1)
    together = errors.count_errors(references, hypotheses, unit)
    pairs = zip(references, hypotheses, strict=True)
    alone = [errors.count_errors([ref], [hyp], unit) for ref, hyp in pairs]
    assert (together == np.concatenate(alone)).all()


@pytest.mark.parametrize(
    ("reference", "hypothesis", "counts"),
    [
        ("", "", [0, 0, 0, 0]),
        ("", "a b", [0, 0, 2, 0]),
        ("a b", "", [0, 2, 0, 2]),
        ("a b", "a b", [0, 0, 0, 2]),
        ("a b c", "a x c d", [1, 0, 1, 3]),
    ],
)
def test_empty_reference_and_hypothesis(reference, hypothesis, counts):
    assert errors.count_errors([reference], [hypothesis], "word").tolist() == [counts]


def test_no_utterances_have_no_errors():
    counts = errors.count_errors([], [], "char")
    assert counts.shape == (0, 4)
    assert errors.rate(counts) == 0.0


def test_wrong_arguments_are_errors():
    with pytest.raises(ValueError, match=r"references \(1\), but got 2"):
        errors.count_errors(["a"], ["a", "b"], "word")
    with pytest.raises(ValueError, match="known: word char"):
        errors.count_errors(["a"], ["a"], "phone")


def counts_of(count, seed):
    return errors.count_errors(*sentences(count, seed), "word")


def test_resampling_is_that_of_a_loop():
    counts = {"es": counts_of(30, 0), "fr": counts_of(7, 1)}
    rates = errors.resample(counts, samples=50, seed=3)
    for number, rows in enumerate(counts.values()):
        random = np.random.default_rng([3, number])
        share = np.full(len(rows), 1 / len(rows))
        for sample, times in enumerate(random.multinomial(len(rows), share, size=50)):
            drawn = np.repeat(rows, times, axis=0)
            assert len(drawn) == len(rows)
            assert rates[sample, number] == pytest.approx(errors.rate(drawn))


def test_one_utterance_has_a_point_interval():
    counts = errors.count_errors(["a b"], ["a"], "word")
    rates = errors.resample({"es": counts})
    assert errors.interval(rates[:, 0]) == [50.0, 50.0]


def test_interval_holds_the_rate_and_narrows_with_more_utterances():
    widths = []
    for count in (50, 800):
        counts = counts_of(count, 2)
        low, high = errors.interval(errors.resample({"es": counts})[:, 0])
        assert low < errors.rate(counts) < high
        widths.append(high - low)
    assert widths[1] == pytest.approx(widths[0] / 4, rel=0.4)  # 1 / sqrt(16)


def test_interval_covers_the_truth_about_as_often_as_promised():
    random = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        wrong = random.binomial(5, 0.3, size=100)
        counts = np.stack([wrong, 0 * wrong, 0 * wrong, 0 * wrong + 5], axis=1)
        low, high = errors.interval(errors.resample({"es": counts}, 300, trial)[:, 0])
        covered += low <= 30 <= high
    assert 0.89 <= covered / 200 <= 0.99


def test_same_seed_same_samples():
    counts = {"es": counts_of(20, 4)}
    assert (errors.resample(counts, seed=1) == errors.resample(counts, seed=1)).all()
    assert (errors.resample(counts, seed=1) != errors.resample(counts, seed=2)).any()


def test_p_value():
    random = np.random.default_rng(0)
    same = random.normal(size=999)
    assert errors.paired_p(same, same) == 1.0
    assert errors.paired_p(same - 100, same) == pytest.approx(2 / 1000)
    assert errors.paired_p(same + 100, same) == pytest.approx(2 / 1000)
    other = random.normal(size=999)
    assert errors.paired_p(same, other) == errors.paired_p(other, same) > 0.5


def test_paired_draws_see_a_small_constant_difference():
    base = counts_of(100, 5)
    better = base.copy()
    better[np.flatnonzero(better[:, errors.SUB]), errors.SUB] -= 1
    system, baseline = (errors.resample({"es": rows})[:, 0] for rows in (better, base))
    assert errors.interval(system)[1] > errors.interval(baseline)[0]  # they overlap
    assert errors.paired_p(system, baseline) < 0.01


def sclite_path():
    """The sclite of Debian's sctk, or None."""
    return shutil.which("sclite", path="/usr/lib/sctk/bin") or shutil.which("sclite")


@pytest.mark.skipif(sclite_path() is None, reason="sclite is not installed")
@pytest.mark.parametrize(("name", "unit"), [("wer", "word"), ("cer", "char")])
def test_sclite_agrees(tmp_path, name, unit):
    pairs = [pair for pair in zip(*sentences(80, seed=6), strict=True) if pair[0]]
    references, hypotheses = map(list, zip(*pairs, strict=True))
    utts = [f"u{n:03d}" for n in range(len(references))]
    test_set = decodes.TestSet("test", utts, ["es"] * len(utts), references, utts)
    decodes.write_trn(tmp_path, test_set, hypotheses)
    command = [sclite_path(), *"-r ref.trn trn -h hyp.trn trn -i rm -o sum".split()]
    run = subprocess.run(
        [*command, "stdout"],
        cwd=tmp_path / f"score_{name}",
        capture_output=True,
        text=True,
        check=True,
    )
    [line] = [line for line in run.stdout.splitlines() if "Sum/Avg" in line]
    ours = errors.rate(errors.count_errors(references, hypotheses, unit))
    theirs = float(line.replace("|", " ").split()[-2])
    # sclite prefers an insertion and a deletion (3 + 3) to two substitutions (4 + 4),
    # so it never finds fewer errors, and rarely more.
    assert ours - 0.06 <= theirs <= 1.01 * ours


def test_examples():
    assert doctest.testmod(errors).failed == 0
