"""Kaldi's tables: what is written is read, and broken ones are named."""

import pytest

from espnet_lora_experts.report.kaldi import read_table, write_table


def test_what_was_written_is_read_in_order(tmp_path):
    table = {"b": "two words", "a": "", "c": "один", "d": "1\u20282\x853"}
    write_table(tmp_path / "text", table)
    assert list(read_table(tmp_path / "text").items()) == list(table.items())
    assert (tmp_path / "text").read_text("utf-8").split("\n")[1] == "a"
    assert [path.name for path in tmp_path.iterdir()] == ["text"]


def test_only_a_line_feed_ends_a_line_and_empty_lines_do_not_count(tmp_path):
    (tmp_path / "text").write_text("a one\u2028two\n\n  \nb\n\tc  3 \n", "utf-8")
    table = {"a": "one\u2028two", "b": "", "c": "3"}
    assert read_table(tmp_path / "text") == table


def test_repeated_key_is_an_error(tmp_path):
    (tmp_path / "text").write_text("a 1\na 2\n")
    with pytest.raises(ValueError, match="text must have each key once, but has 'a'"):
        read_table(tmp_path / "text")


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="text must exist, but does not"):
        read_table(tmp_path / "text")
