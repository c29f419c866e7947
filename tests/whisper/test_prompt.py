"""Prompts come from the vocabulary, texts come back."""

import pytest

from espnet_lora_experts.whisper.prompt import PROMPT_LENGTH


@pytest.mark.parametrize(
    ("code", "token"), [("es", "<|es|>"), ("yue", "<|zh|>"), ("ast", "<|es|>")]
)
def test_prompt_is_whispers(prompter, code, token):
    assert prompter.tokens(prompter.prompt(code)) == [
        "<|startoftranscript|>",
        token,
        "<|transcribe|>",
        "<|notimestamps|>",
    ]
    assert len(prompter.prompt(code)) == PROMPT_LENGTH


def test_language_without_a_token_is_an_error(prompter):
    with pytest.raises(ValueError, match="'fr'.*none of <|fr|>; known: en zh de es"):
        prompter.prompt("fr")


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("es", "¿Qué hora es?"),
        ("ru", "Привет, мир"),
        ("ja", "今日は良い"),
        ("zh", "你好"),
        ("en", "don't , stop"),
        ("en", ""),
    ],
)
def test_text_comes_back(prompter, code, text):
    ids = prompter.encode(text, code)
    assert prompter.decode(ids) == text
    assert prompter.encode(f"  {text}\n", code) == ids
    whole = [*prompter.prompt(code), *ids, prompter.eot]
    assert prompter.decode(whole) == text


@pytest.mark.parametrize(("code", "space"), [("es", True), ("ru", True), ("ja", False)])
def test_text_starts_with_a_space_where_words_have_them(prompter, code, space):
    first = prompter.tokens(prompter.encode("ab", code))[0]
    assert first == ("Ġ" if space else "a")


def test_token_list_is_the_vocabulary_in_order(prompter, config):
    tokens = prompter.token_list()
    assert len(tokens) == config.vocab_size
    assert [prompter.vocab[token] for token in tokens] == list(range(len(tokens)))
    assert tokens[prompter.eot] == "<|endoftext|>"
    assert tokens[prompter.sot] == "<|startoftranscript|>"
