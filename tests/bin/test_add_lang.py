"""Adding a language: what is checked first, and lists put together."""

import json

import pytest

from espnet_lora_experts.bin import add_lang
from espnet_lora_experts.report.kaldi import read_table


@pytest.fixture
def finished(tmp_path):
    """Descriptions of a finished run of two languages."""
    for name, steps in (("mono", 100), ("mole", 126), ("kd", 3)):
        what = {"type": "x", "languages": ["es", "ru"], "steps": steps}
        what["backbone"] = {"name": "w", "sha256": "0"}
        (tmp_path / name).mkdir()
        (tmp_path / name / "system.json").write_text(json.dumps(what))
    return tmp_path


def facts(expdir, langs="be", *options):
    add_lang.main(["facts", "--expdir", str(expdir), "--langs", langs, *options])


def test_facts_are_the_languages_and_a_share_of_the_steps(finished, capsys):
    facts(finished, "be ca")
    assert capsys.readouterr().out == "langs es ru be ca\nmole 25\nkd 1\n"
    (finished / "kd/system.json").unlink()
    facts(finished, "be", "--share", "50")
    assert capsys.readouterr().out == "langs es ru be\nmole 63\n"


@pytest.mark.parametrize(
    "langs, options, message",
    [
        ("ru", [], r"must be new, but got ru; .*\['es', 'ru'\]"),
        ("be be", [], "must be new, but got be"),
        ("xx", [], "must be a code of the table, but got 'xx'"),
        ("be", ["--share", "0"], "must be 1 to 100 .*got 0"),
    ],
)
def test_languages_and_share_are_checked(finished, langs, options, message):
    with pytest.raises(ValueError, match=message):
        facts(finished, langs, *options)


def test_a_run_without_systems_says_what_is_missing(finished):
    for name in ("mole", "kd"):
        (finished / name / "system.json").unlink()
    with pytest.raises(ValueError, match="must have a system to extend, of mole, kd"):
        facts(finished)
    with pytest.raises(FileNotFoundError, match="nowhere/mono must be a system's"):
        facts(finished / "nowhere")


def test_tables_that_both_have_are_joined_in_order(tmp_path, write_table):
    for name, rows in (("one", {"b": "2", "d": ""}), ("two", {"a": "1 x", "c": "3"})):
        (tmp_path / name).mkdir()
        write_table(tmp_path / name / "text", rows)
        write_table(tmp_path / name / "wav.scp", rows)
    write_table(tmp_path / "one/utt2spk", {"b": "b"})
    folders = [str(tmp_path / name) for name in ("one", "two", "out/test")]
    add_lang.main(["join", *folders])
    joined = read_table(tmp_path / "out/test/text")
    assert list(joined.items()) == [("a", "1 x"), ("b", "2"), ("c", "3"), ("d", "")]
    assert {x.name for x in (tmp_path / "out/test").iterdir()} == {"text", "wav.scp"}
    with pytest.raises(ValueError, match="2 are in both, such as b"):
        add_lang.main(["join", folders[0], folders[0], folders[2]])
    (tmp_path / "two/text").unlink()
    with pytest.raises(FileNotFoundError, match="two/text must exist"):
        add_lang.main(["join", *folders])
