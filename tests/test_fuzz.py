"""Parsers take anything; and the fuzzer sees those that do not."""

import os
import signal

import pytest

from tests.fuzz import __main__ as command
from tests.fuzz import loop, worker
from tests.fuzz.parsers import MAKERS, Parser

RUNS = 500


def test_no_parser_fails_whatever_it_is_given(tmp_path, capsys):
    """A small part of what the command does with more --runs."""
    assert command.main(["--runs", f"{RUNS}", "--keep", f"{tmp_path}"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    found = [dict(zip(head.split(), row.split(), strict=True)) for row in rows]
    assert [row["parser"] for row in found] == [*MAKERS]
    for row in found:
        assert row["inputs"] == f"{RUNS}" and int(row["accepted"]) > 0, row
        assert int(row["lines"]) > 10, row


def broken(_):
    raise KeyError("x")


def unnamed(_):
    raise ValueError("x must be y")


def other(_):
    open("/nowhere/at/all")  # noqa: SIM115


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
def test_each_failure_is_found(tmp_path, monkeypatch, read, what):
    monkeypatch.setattr(loop, "SECONDS", 0.02)
    outcome = loop.fuzz(Parser("x", [{"a": b"1"}], read), tmp_path, 3, seed=1)
    assert outcome.inputs == 3 and outcome.hangs == (3 if read is endless else 0)
    assert [what in found for found, *_ in outcome.failures] == [True] * 3 * bool(what)


def test_what_a_text_by_itself_says_need_not_name_a_file(tmp_path):
    parser = Parser("x", [{"a": b"1"}], unnamed, named=False)
    assert loop.fuzz(parser, tmp_path, 3, seed=1).failures == []


def test_new_lines_of_ours_lead_further(tmp_path, monkeypatch):
    """Three words, one after the other, which chance alone does not find together."""

    def read(folder):
        content = (folder / "a").read_bytes()
        if b"null" in content:
            if b"1e999" in content:
                if b"/etc/passwd" in content:
                    raise KeyError("x")

    parser = Parser("x", [{"a": b"...."}], read)
    monkeypatch.setattr(loop, "OURS", (__file__,))
    assert loop.fuzz(parser, tmp_path, 2000, seed=5).crashes
    monkeypatch.setattr(loop, "OURS", ("nowhere",))
    assert not loop.fuzz(parser, tmp_path, 2000, seed=5).crashes


def dying() -> Parser:
    def read(folder):
        if len((folder / "a").read_bytes()) != 3:
            os.kill(os.getpid(), signal.SIGKILL)

    return Parser("dying", [{"a": b"123"}], read)


def work_with_dying(names, *how):
    MAKERS["dying"] = dying
    WORK(names, *how)


WORK = worker._work


def test_a_process_that_dies_leaves_its_input(monkeypatch):
    monkeypatch.setattr(worker, "_work", work_with_dying)
    [outcome] = worker.outcomes(["dying"], 100, 1)
    [(what, _, case)] = outcome.failures
    assert outcome.crashes == 1 and what == "the process ended with -9"
    assert set(case) == {"a"} and len(case["a"]) != 3


@pytest.mark.parametrize("name", MAKERS)
def test_seeds_are_taken_as_they_are(tmp_path, name):
    """What good files start from must be good, or most of a parser is not reached."""
    parser = MAKERS[name]()
    for case in parser.seeds[: 1 if name == "options" else None]:
        loop.write(case, tmp_path)
        parser.read(tmp_path)
