"""Stage 3: the token list numbers the vocabulary, and vanilla is described."""

import logging
import shutil

import pytest
from safetensors.torch import load_file

from espnet_lora_experts.bin import backbone as stage
from espnet_lora_experts.whisper import hub
from espnet_lora_experts.whisper.description import read_description

MORE = 7
"""Ids of the model that its tokenizer has no string for."""


@pytest.fixture(scope="module")
def folder(whisper_folder, make_whisper, config, tmp_path_factory):
    """A Whisper with more rows of embeddings than its tokenizer has tokens."""
    folder = tmp_path_factory.mktemp("models") / "whisper-wide"
    shutil.copytree(whisper_folder, folder)
    make_whisper(vocab_size=config.vocab_size + MORE).save_pretrained(folder)
    return folder


@pytest.fixture
def run(folder, tmp_path):
    """Runs the stage; gives the lines of the token list and the experiments' folder."""

    def run(langs="es ru"):
        tokens, exp = tmp_path / "token_list/name/tokens.txt", tmp_path / "exp"
        options = ["--token_list", str(tokens), "--expdir", str(exp), "--langs", langs]
        stage.main(["--backbone", str(folder), *options])
        return tokens.read_text("utf-8").removesuffix("\n").split("\n"), exp

    return run


def test_the_token_list_has_a_line_for_every_id(run, folder, config):
    lines, _ = run()
    weight_KD = load_file(folder / "model.safetensors")[
        "model.decoder.embed_tokens.weight"
    ]
    assert len(lines) == len(set(lines)) == len(weight_KD) == config.vocab_size + MORE
    numbers = range(config.vocab_size, config.vocab_size + MORE)
    assert lines[-MORE:] == [f"<|unused{i}|>" for i in numbers]


def test_lines_are_the_tokenizer_s_ids(run, prompter):
    lines, _ = run()
    ids = [*prompter.prompt("ru"), *prompter.encode("¿Qué? Да", "ru"), prompter.eot]
    assert [lines[i] for i in ids] == prompter.tokens(ids)
    assert [lines.index(token) for token in prompter.tokens(ids)] == ids
    assert {token: lines.index(token) for token in prompter.vocab} == prompter.vocab


def test_vanilla_is_the_backbone_as_it_came(run, folder, make_whisper, config):
    what = read_description(run("ru es")[1] / "vanilla")
    whole = make_whisper(vocab_size=config.vocab_size + MORE)
    sha256 = hub.weights_sha256(whole)
    assert what["backbone"] == {"name": str(folder), "sha256": sha256}
    assert (what["type"], what["languages"]) == ("vanilla", ["ru", "es"])
    assert (what["steps"], what["trained_params"]) == (0, 0)
    assert what["deployed_params"] == whole.num_parameters()


def test_each_language_s_token_is_logged(run, caplog):
    """Cantonese borrows Chinese's where a Whisper lacks its own."""
    with caplog.at_level(logging.INFO):
        run("es yue")
    assert "es: spanish, token <|es|>" in caplog.text
    assert "yue: cantonese, token <|zh|>" in caplog.text


@pytest.mark.parametrize(
    "langs, message",
    [
        ("es xx", "language must be a code of the table, but got 'xx'; near: "),
        ("es fr", "vocabulary must have a token of language 'fr', but got none of "),
    ],
)
def test_a_language_it_cannot_have_is_an_error(run, tmp_path, langs, message):
    with pytest.raises(ValueError, match=message):
        run(langs)
    assert [*tmp_path.iterdir()] == []  # before anything is written
