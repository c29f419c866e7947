"""Language models over Whisper's tokens: trained on what the search gives them."""

import pytest
import torch
from espnet2.train.preprocessor import CommonPreprocessor

from espnet_lora_experts.plugin.lm import TextScorer, WhisperLMTask

LMS = {
    "seq_rnn": {"unit": 8, "nlayers": 1},
    "transformer": {"embed_unit": 8, "att_unit": 8, "head": 2, "unit": 8, "layer": 1},
}
TEXT = [7, 0, 9, 9]


@pytest.fixture
def parse(folder_30s, token_list):
    """Options of a language model's training."""

    def parse(*options):
        given = ["--token_list", str(token_list), "--bpemodel", str(folder_30s)]
        given += ["--output_dir", "unused", "--token_type", "hugging_face"]
        return WhisperLMTask.get_parser().parse_args([*given, *options])

    return parse


@pytest.fixture(params=LMS)
def model(request, parse):
    args = parse("--lm", request.param)
    args.lm_conf = LMS[request.param]
    torch.manual_seed(0)
    return WhisperLMTask.build_model(args).eval()


@torch.no_grad()
def log_p(lm, context, tokens):
    """Log probability of tokens after a context, by one forward."""
    ids = torch.tensor([context + tokens])
    scores = lm(ids, None)[0].view(len(ids[0]), -1).log_softmax(-1)
    return [float(scores[len(context) - 1 + i, t]) for i, t in enumerate(tokens)]


@torch.no_grad()
def test_texts_begin_and_end_with_the_end_token(model, prompter):
    nll, lengths = model.nll(torch.tensor([TEXT]), torch.tensor([len(TEXT)]))
    expected = log_p(model.lm, [prompter.eot], [*TEXT, prompter.eot])
    assert lengths.tolist() == [len(TEXT) + 1]
    torch.testing.assert_close(-nll[0], torch.tensor(expected))


@torch.no_grad()
def test_the_search_reads_the_text_behind_the_prompt(model, prompter):
    """Token by token, alone and batched, as the model reads a whole text."""
    scorer, x = TextScorer(model.lm, prompter.eot), torch.zeros(2, 3, 4)
    ys = torch.tensor([prompter.prompt("es")] * 2)
    expected = log_p(model.lm, [prompter.eot], [*TEXT, prompter.eot])
    state, states = None, [None, None]
    for token, log_prob in zip([*TEXT, prompter.eot], expected, strict=True):
        alone, state = scorer.score(ys[0], state, x[0])
        both, states = scorer.batch_score(ys, states, x)
        assert float(alone[token]) == pytest.approx(log_prob, abs=1e-5)
        torch.testing.assert_close(both[1], alone, atol=1e-5, rtol=1e-5)
        ys = torch.cat([ys, torch.full((2, 1), token)], dim=1)


@pytest.mark.parametrize("code", ["en", "ja"])
def test_text_has_the_decoders_ids(parse, prompter, code):
    args = parse("--language", code)
    process = WhisperLMTask.build_preprocess_fn(args, train=True)
    ids = process("u", {"text": "uno dos"})["text"]
    assert ids.tolist() == prompter.encode("uno dos", code)


def test_other_tokens_are_espnets(parse, tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text("<blank>\n<unk>\na\n<sos/eos>\n")
    args = parse("--token_type", "char", "--token_list", str(tokens))
    process = WhisperLMTask.build_preprocess_fn(args, train=True)
    assert type(process) is CommonPreprocessor
    assert WhisperLMTask.build_model(args).eos == 3
