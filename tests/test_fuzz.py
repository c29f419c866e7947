"""Parsers take anything; and the fuzzer sees those that do not."""

import itertools
import os
import signal
import tempfile
from pathlib import Path

import pytest

from tests.fuzz import __main__ as command
from tests.fuzz import loop, worker
from tests.fuzz.parsers import MAKERS, Parser

RUNS = 300


def test_no_parser_fails_whatever_it_is_given(tmp_path, capsys):
    """A small part of what the command does with more --runs."""
    assert command.main(["--runs", f"{RUNS}", "--keep", f"{tmp_path}"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    found = [dict(zip(head.split(), row.split(), strict=True)) for row in rows]
    assert [row["parser"] for row in found] == [*MAKERS]
    for row in found:
        assert row["inputs"] == f"{RUNS}" and int(row["accepted"]) > 0, row
        assert int(row["lines"]) > 10, row


@pytest.fixture
def place():
    with tempfile.TemporaryDirectory(dir=worker.memory_folder()) as place:
        yield Path(place)


def broken(_):
    raise KeyError("x")


def unnamed(_):
    raise ValueError("x must be y")


def other(_):
    open("/nowhere/at/all")


def endless(_):
    while True:
        pass


def named(folder):
    raise ValueError(f"{folder}/a must be y")


@pytest.mark.parametrize(
    ("read", "what"),
    [
        (broken, "KeyError at test_fuzz.py"),
        (unnamed, "names no file"),
        (other, "FileNotFoundError at test_fuzz.py"),
        (endless, "hang"),
        (named, ""),
        (len, "TypeError at loop.py"),
        (str, ""),
    ],
)
def test_each_failure_is_found(place, monkeypatch, read, what):
    monkeypatch.setattr(loop, "SECONDS", 0.02)
    outcome = loop.fuzz(Parser("x", [{"a": b"1"}], read), place, 3, seed=1)
    hangs = 3 * (what == "hang")
    assert outcome.inputs == 3 and outcome.hangs == hangs
    assert outcome.crashes == 3 * bool(what) - hangs
    assert [what in found for found in outcome.failures] == [True] * bool(what)


def test_what_a_text_by_itself_says_need_not_name_a_file(place):
    parser = Parser("x", [{"a": b"1"}], unnamed, named=False)
    assert loop.fuzz(parser, place, 3, seed=1).failures == {}


def test_new_lines_of_ours_lead_further(place, monkeypatch):
    """Three words, one after the other, which chance alone does not find together."""

    def read(folder):
        content = (folder / "a").read_bytes()
        if b"null" in content:
            if b"1e999" in content:
                if b"/etc/passwd" in content:
                    raise KeyError("x")

    parser = Parser("x", [{"a": b"...."}], read)
    monkeypatch.setattr(loop, "OURS", (__file__,))
    assert loop.fuzz(parser, place, 2000, seed=5).crashes
    monkeypatch.setattr(loop, "OURS", ("nowhere",))
    assert not loop.fuzz(parser, place, 2000, seed=5).crashes


def dying(_):
    os.kill(os.getpid(), signal.SIGKILL)


def endless_in_c(_):
    all(itertools.repeat(True))


def unless_as_it_was(read):
    def reader(folder):
        if len((folder / "a").read_bytes()) != 3:
            read(folder)

    return lambda: Parser("x", [{"a": b"123"}], reader)


def work(names, *how):
    """In the process; what a test changes is not changed there."""
    loop.SECONDS = 0.02
    MAKERS["x"] = unless_as_it_was(globals()[names[0]])
    WORK(["x"], *how)


WORK = worker._work


def test_a_process_that_dies_leaves_its_input(monkeypatch):
    """And the next parser gets another."""
    monkeypatch.setattr(worker, "_work", work)
    ends = [signal.SIGKILL, signal.SIGVTALRM]
    found = worker.outcomes(["dying", "endless_in_c"], 100, 1)
    for outcome, end in zip(found, ends, strict=True):
        [(what, (_, case))] = outcome.failures.items()
        assert outcome.crashes == 1 and what == f"the process ended with {-end}"
        assert set(case) == {"a"} and len(case["a"]) != 3


@pytest.mark.parametrize("name", MAKERS)
def test_seeds_are_taken_as_they_are(place, name):
    """What good files start from must be good, or most of a parser is not reached."""
    parser = MAKERS[name]()
    for case in parser.seeds[: 1 if name == "options" else None]:
        loop.write(case, place)
        parser.read(place)
