"""The token list of stock asr.sh."""

import pytest

from espnet_lora_experts.plugin.vocabulary import export_vocabulary


def test_line_n_is_id_n_specials_included(folder_30s, prompter, tmp_path):
    export_vocabulary(str(tmp_path / "tokens.txt"), str(folder_30s))
    tokens = (tmp_path / "tokens.txt").read_text("utf-8").splitlines()
    assert [prompter.vocab[token] for token in tokens] == [*range(len(tokens))]
    assert tokens[prompter.sot] == "<|startoftranscript|>"


def test_no_symbol_may_move_whispers_ids(folder_30s, tmp_path):
    with pytest.raises(ValueError, match="add_symbol must be empty"):
        export_vocabulary(
            str(tmp_path / "x"), str(folder_30s), add_symbol=["<blank>:0"]
        )
