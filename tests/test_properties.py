"""Properties of what meets names and texts of strangers, whatever they are."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from espnet_lora_experts.bin.format_data import file_name
from espnet_lora_experts.report.kaldi import read_table, write_table
from espnet_lora_experts.whisper import languages
from espnet_lora_experts.whisper.description import NAME
from espnet_lora_experts.whisper.yaml_files import parse_yaml

quick = settings(max_examples=100, deadline=None)
words = st.text(st.characters(exclude_categories=["Z", "C"]), min_size=1)
codes = st.sampled_from([*languages.TABLE])


@quick
@given(st.text(min_size=1))
def test_a_file_of_an_utterance_stays_in_its_folder(utt):
    name = file_name(utt)
    assert Path("data", name).parent == Path("data") and Path(name).name == name
    assert not name.startswith(".") and len(name.encode()) < 255


@quick
@given(st.lists(st.text(min_size=1), unique=True, min_size=2))
def test_different_utterances_have_different_files(utts):
    assert len({file_name(utt) for utt in utts}) == len(utts)


@quick
@given(st.text(), codes)
def test_any_text_has_a_normal_form(text, code):
    once = languages.normalize(text, code)
    assert once == " ".join(once.split())


@quick
@given(st.text())
def test_what_is_no_language_is_a_value_error(code):
    if code in languages.TABLE:
        assert NAME.fullmatch(languages.get(code).code)
    else:
        with pytest.raises(ValueError, match="^language must be"):
            languages.get(code)


@quick
@given(table=st.dictionaries(words, words))
def test_a_table_is_what_was_written(tmp_path_factory, table):
    path = tmp_path_factory.mktemp("table") / "text"
    write_table(path, table)
    assert read_table(path) == table


@quick
@given(st.text())
def test_any_yaml_is_a_mapping_or_a_value_error(text):
    try:
        assert isinstance(parse_yaml(text), dict)
    except ValueError:
        pass
