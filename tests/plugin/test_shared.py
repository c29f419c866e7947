"""Frontend, encoder and decoder are views on one Whisper in memory."""

import gc

import pytest
import torch
from espnet2.asr.decoder.whisper_decoder import BatchScorerInterface
from espnet2.bin.asr_inference import BatchBeamSearch, BeamSearch
from transformers import WhisperForConditionalGeneration

from espnet_lora_experts.plugin import shared
from espnet_lora_experts.plugin.task import LoraExpertsTask

KINDS = ["experts", "multi", "mole", "distill", "full"]


def whispers():
    gc.collect()
    kind = WhisperForConditionalGeneration
    return {id(x) for x in gc.get_objects() if type(x) is kind}


@pytest.mark.parametrize("kind", KINDS)
def test_one_whisper_in_memory(build, collate, make_whisper, kind):
    """Of a model in training, teacher and student included, and every byte of it."""
    base = sum(p.numel() for p in make_whisper(max_source_positions=1500).parameters())
    before = whispers()
    model = build(kind)
    model(**collate("a1", "a2"))[0].backward()
    assert len(whispers() - before) == 1
    lora = sum(p.numel() for n, p in model.named_parameters() if ".lora_" in n)
    rest = model.trained_params if kind == "mole" else 0
    storage = {t.data_ptr(): t.numel() for t in model.parameters() if t.numel()}
    assert sum(storage.values()) == base + lora + rest
    assert shared._waiting == {}


def test_models_of_one_backbone_do_not_share_it(build):
    a, b = build("experts"), build("experts")
    assert a.backbone is not b.backbone
    assert a.decoder.backbone is a.encoder.backbone is a.backbone


def test_checkpointing_changes_no_gradient(build, collate, gradients):
    more = {"frontend_conf": {"checkpointing": True}}
    plain, saving = build("experts"), build("experts", more=more)
    assert saving.backbone.checkpointing and not plain.backbone.checkpointing
    batch = collate("a1", "a2")
    a, b = (gradients(model, model(**batch)[0]) for model in (plain, saving))
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("kind", ["multi", "full"])
def test_espnets_contract_gives_the_models_own_scores(build, collate, kind):
    """``encode`` and the decoder, as ESPnet's decoding calls them, batched."""
    model, given = build(kind).eval(), collate("a2", "a4", "a6")
    hidden, lengths = model.encode(given["speech"], given["speech_lengths"])
    ids = given["text"].clamp(min=0)
    scores, _ = model.decoder(hidden, lengths, ids, given["text_lengths"])
    log_p = scores.log_softmax(-1)
    for row, n in enumerate(given["text_lengths"]):
        targets = [*ids[row, 1:n].tolist(), model.eos]
        counted = [0, *range(3, n)]
        loss = -sum(log_p[row, u, targets[u]] for u in counted) / len(counted)
        alone = model(**collate(["a2", "a4", "a6"][row]))[0][0]
        torch.testing.assert_close(loss, alone, atol=1e-5, rtol=1e-5)


def test_vocabulary_must_be_the_backbones(arguments, tmp_path):
    short = tmp_path / "token_list"
    short.write_text("a\nb\n")
    args = arguments(token_list=str(short), model_conf={"languages": ["es"]})
    with pytest.raises(ValueError, match="must hold the .* tokens of .*got 2.*stage 3"):
        LoraExpertsTask.build_model(args)


class Plain(BatchScorerInterface, torch.nn.Module):
    """The same decoder, all tokens again at every step."""

    def __init__(self, decoder):
        super().__init__()
        self.decoder = decoder

    def score(self, ys, state, x):
        scores, states = self.batch_score(ys[None], [state], x[None])
        return scores[0], states[0]

    def batch_score(self, ys, states, xs):
        lengths = torch.full((len(xs),), xs.shape[1])
        scores, _ = self.decoder(xs, lengths, ys, None)
        return scores[:, -1].log_softmax(-1), states


@torch.no_grad()
@pytest.mark.parametrize("kind", ["multi", "full"])
@pytest.mark.parametrize("search", [BeamSearch, BatchBeamSearch])
def test_espnets_beam_search_finds_the_same_with_and_without_cache(
    build, collate, kind, search, prompter
):
    model, given = build(kind).eval(), collate("a2", "a4", "a6")
    hidden, _ = model.encode(given["speech"], given["speech_lengths"])
    found = []
    for scorer in (model.decoder, Plain(model.decoder)):
        beam = search(
            scorers={"decoder": scorer},
            weights={"decoder": 1.0},
            beam_size=4,
            vocab_size=model.vocab_size,
            sos=prompter.sot,
            eos=prompter.eot,
            pre_beam_score_key=None,
        )
        beam.set_hyp_primer(prompter.prompt("es"))
        found.append([beam(x, maxlenratio=0.3) for x in hidden])
    for cached, plain in zip(*found, strict=True):
        assert len(cached) == len(plain) >= 4
        for a, b in zip(cached, plain, strict=True):
            assert a.yseq.tolist() == b.yseq.tolist()
            assert float(a.score) == pytest.approx(float(b.score), abs=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("search", [BeamSearch, BatchBeamSearch])
def test_a_search_ends_at_whispers_last_position(build, collate, search, prompter):
    """ESPnet's default length bound is beyond it for clips of nine seconds and more."""
    model, given = build("multi").eval(), collate("a2", "a4")
    hidden, _ = model.encode(given["speech"], given["speech_lengths"])
    model.backbone.config.max_target_positions = 12
    never_end = model.decoder._end(torch.zeros(1, 1))[0].isfinite()
    scorer = model.decoder
    plain = scorer.score if search is BeamSearch else scorer.batch_score

    def looping(ys, states, xs):
        scores, states = plain(ys, states, xs)
        full = ys.shape[-1] > 12
        return scores if full else scores.masked_fill(never_end, -1e9), states

    scorer.score = scorer.batch_score = looping
    beam = search(
        {"decoder": scorer},
        {"decoder": 1.0},
        3,
        model.vocab_size,
        prompter.sot,
        prompter.eot,
        pre_beam_score_key=None,
    )
    beam.set_hyp_primer(prompter.prompt("es"))
    best = beam(hidden[0], maxlenratio=0.0)[0]
    assert len(best.yseq) == 12 + 2  # all positions, what comes after, the end


@torch.no_grad()
def test_states_of_an_earlier_token_are_an_error(build, collate, prompter):
    model, given = build("multi").eval(), collate("a2")
    hidden, _ = model.encode(given["speech"], given["speech_lengths"])
    ys = torch.tensor([prompter.prompt("es")])
    _, states = model.decoder.batch_score(ys, [None], hidden)
    longer = torch.cat([ys, ys[:, :1]], dim=1)
    model.decoder.batch_score(longer, states, hidden)
    with pytest.raises(ValueError, match="states must be of the last token"):
        model.decoder.batch_score(longer, states, hidden)
