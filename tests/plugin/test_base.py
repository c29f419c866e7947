"""What holds for every model: batches, the recognition loss, statistics, precision."""

import math

import pytest
import torch
import torch.nn.functional as F

from espnet_lora_experts.plugin.base import spread
from espnet_lora_experts.whisper.systems import decode, encode

KINDS = ["experts", "multi", "mole", "distill", "logits_only", "full"]
FINDS_LANGUAGE = {"multi", "distill", "logits_only", "full"}
UTTS = ["a1", "a2", "a3", "a4", "a5"]  # mixed, not sorted by language, a4 has no text
every_kind = pytest.mark.parametrize("kind", KINDS)


@every_kind
def test_mixed_batch_is_its_utterances_one_by_one(build, collate, gradients, kind):
    model = build(kind).eval()
    loss, stats, weight = model(**collate(*UTTS))
    single = [model(**collate(utt)) for utt in UTTS]
    mean = torch.stack([loss for loss, _, _ in single]).mean(0)
    torch.testing.assert_close(loss, mean, atol=1e-5, rtol=1e-5)
    assert weight == len(UTTS)
    for name in single[0][1]:
        values = torch.stack([stats[name] for _, stats, _ in single])
        expected = values.nanmean(0)
        torch.testing.assert_close(stats[name], expected, atol=1e-5, rtol=1e-5)
    whole, parts = gradients(model, loss), gradients(model, mean)
    scale = max(float(g.abs().max()) for g in parts.values())
    assert scale > 1e-3
    for name, gradient in whole.items():
        assert (gradient - parts[name]).abs().max() < 1e-4 * scale, name


def test_rows_of_a_language_are_neighbours_with_all_that_is_theirs(build, collate):
    model, together = build("multi").eval(), collate(*UTTS)
    fields = ("speech", "speech_lengths", "text", "text_lengths", "lang")
    batch = model.batch(*(together[name] for name in fields))
    assert batch.langs == ["es", "es", "ja", "ru", "ru"]
    for row, utt in enumerate(["a2", "a4", "a3", "a1", "a5"]):
        given = collate(utt)
        alone = model.batch(*(given[name] for name in fields))
        assert batch.langs[row] == alone.langs[0]
        assert batch.frames_B[row] == alone.frames_B[0]
        tokens, frames = alone.ids_BU.shape[1], int(alone.frames_B[0])
        assert torch.equal(batch.ids_BU[row, :tokens], alone.ids_BU[0])
        mel = batch.mel_BTM[row, :frames], alone.mel_BTM[0, :frames]
        torch.testing.assert_close(*mel)


@every_kind
def test_loss_is_cross_entropy_of_language_text_and_end(build, collate, kind):
    """By hand, for each utterance; the language counts where it must be found."""
    model = build(kind).eval()
    for utt in UTTS:
        given = collate(utt)
        _, stats, _ = model(**given)
        batch = model.batch(
            *(given[k] for k in ("speech", "speech_lengths")), **text(given)
        )
        encoded = encode(
            model.backbone, model.system, batch.mel_BTM, batch.frames_B, batch.langs
        )
        y = decode(model.backbone, model.system, encoded, batch.ids_BU)
        log_p = F.log_softmax(model.backbone.logits(y)[0].float(), dim=-1)
        ids = [*given["text"][0].tolist(), model.eos]
        counted = (
            [0, *range(3, len(ids) - 1)]
            if kind in FINDS_LANGUAGE
            else [*range(3, len(ids) - 1)]
        )
        expected = -sum(log_p[u, ids[u + 1]] for u in counted) / len(counted)
        torch.testing.assert_close(stats["loss_asr"][0], expected)
        hits = [float(log_p[u].argmax() == ids[u + 1]) for u in range(3, len(ids) - 1)]
        assert math.isclose(float(stats["acc"]), sum(hits) / len(hits), abs_tol=1e-6)
        assert ("acc_lid" in stats) == (kind != "experts")
        if kind in FINDS_LANGUAGE:
            tokens = [model.vocab[f"<|{code}|>"] for code in model.languages]
            best = tokens[int(log_p[0, tokens].argmax())]
            assert float(stats["acc_lid"]) == float(best == ids[1])


def text(given):
    return {name: given[name] for name in ("text", "text_lengths", "lang")}


def test_statistics_of_each_language(build, collate):
    model = build("multi").eval()
    _, stats, _ = model(**collate("a1", "a2", "a5"))
    ru = [model(**collate(utt))[1]["loss"] for utt in ("a1", "a5")]
    torch.testing.assert_close(stats["loss_ru"], sum(ru) / 2)
    torch.testing.assert_close(stats["loss_es"], model(**collate("a2"))[1]["loss"])
    hits = [model(**collate(utt))[1]["acc_lid"] for utt in ("a1", "a5")]
    torch.testing.assert_close(stats["acc_lid_ru"], sum(hits) / 2)
    assert all(stats[f"{name}_ja"].isnan() for name in ("loss", "acc", "acc_lid"))


@pytest.mark.parametrize("kind, finds", [("experts", False), ("multi", True)])
def test_lid_accuracy_of_each_language_is_for_validation(build, collate, kind, finds):
    """Of models that find the language; training's log lines are long enough."""
    model, batch = build(kind), collate("a1")
    training, validation = model(**batch)[1], model.eval()(**batch)[1]
    own = {f"acc_lid_{code}" for code in model.languages} if finds else set()
    assert set(validation) - set(training) == own
    assert set(training) <= set(validation)


def test_languages_that_share_a_token_are_one_class(build, monkeypatch):
    model = build("multi", langs=["zh", "yue", "es"])
    scores_BK = torch.zeros(3, len(model.vocab))
    scores_BK[:, model.vocab["<|zh|>"]] = 1
    scores_BK[:, model.vocab["<|ru|>"]] = 2  # no target, so it does not compete
    monkeypatch.setattr(model.backbone, "logits", lambda y, ids: y[:, ids])
    assert model._language_hits(scores_BK, ["zh", "yue", "es"]).tolist() == [1, 1, 0]


@every_kind
def test_whisper_stays_in_evaluation_mode(build, collate, kind):
    """ESPnet calls train() each epoch; dropout must not come with it."""
    model, batch = build(kind), collate("a2")
    before = model.eval()(**batch)[0]
    for module in model.backbone.hf.modules():
        if hasattr(module, "dropout"):
            module.dropout = 0.5
    assert torch.equal(model.train()(**batch)[0], before)


@pytest.mark.parametrize("prob, frames", [(0.0, {114, 96}), (1.0, {3000})])
def test_pads_training_batches_to_30_s(build, collate, prob, frames):
    model, given = build("experts", pad_to_30s_prob=prob), collate("a2", "a1")
    speech = given["speech"], given["speech_lengths"]
    batch = model.batch(*speech, **text(given))
    natural = [(n + 64 * 160 + 319) // 320 * 2 for n in (5000, 9000)]
    expected = [3000, 3000] if prob else natural
    assert batch.frames_B.tolist() == expected
    assert model.eval().batch(*speech, **text(given)).frames_B.tolist() == natural


@every_kind
def test_bfloat16_is_close_to_float32(build, collate, gradients, kind):
    exact, half = build(kind), build(kind, autocast="bfloat16")
    batch = collate("a1", "a2", "a3")
    loss, other = exact(**batch)[0], half(**batch)[0]
    assert other.dtype == torch.float32
    assert not torch.equal(loss, other)
    torch.testing.assert_close(loss, other, rtol=0.02, atol=0.02)
    assert all(g.dtype == torch.float32 for g in gradients(half, other).values())


@every_kind
def test_without_a_type_of_its_own_the_surrounding_one_holds(build, collate, kind):
    """So that ESPnet's ``use_amp`` has an effect; a type of the model's own wins."""
    plain, half = build(kind).eval(), build(kind, autocast="bfloat16").eval()
    batch = collate("a1", "a2", "a3")
    with torch.autocast("cpu", torch.bfloat16):
        inside = plain(**batch)[0]
    with torch.autocast("cpu", torch.float16):
        own = half(**batch)[0]
    assert inside.dtype == torch.float32
    assert torch.equal(inside, half(**batch)[0]) and torch.equal(own, inside)
    assert not torch.equal(inside, plain(**batch)[0])


def test_text_beyond_the_decoders_positions_is_named(build, collate):
    """The tiny decoder has 32: four of the prompt, a space and 27 letters."""
    model = build("experts")
    assert model(**collate("a2", text="x" * 27))[0].isfinite()
    batch = collate("a2", "a4", text="x" * 28)
    message = "utterance a2 must have at most 32 tokens.* has 33 .*split it"
    with pytest.raises(ValueError, match=message):
        model(**batch, utt_id=["a2", "a4"])


def test_label_smoothing_is_espnets_option(build, collate):
    batch = collate("a1")
    plain, smooth = (build("multi", lsm_weight=w).eval() for w in (0.0, 0.1))
    assert plain(**batch)[0] != smooth(**batch)[0]


def test_specaugment_is_for_training(build, collate):
    conf = {"apply_time_warp": False, "time_mask_width_range": [0, 20]}
    more = {"specaug": "specaug", "specaug_conf": conf}
    model, batch = build("multi", more=more), collate("a1")
    plain = build("multi")(**batch)[0]
    assert model(**batch)[0].isfinite() and model(**batch)[0] != plain
    assert torch.equal(model.eval()(**batch)[0], plain)


def test_sizes_of_the_terms_are_logged_at_the_first_step(build, collate, caplog):
    model, batch = build("distill"), collate("a1")
    with caplog.at_level("INFO"):
        model.eval()(**batch)
        assert "terms at the first step" not in caplog.text
        for _ in range(2):
            model.train()(**batch)
    assert caplog.text.count("terms at the first step: loss=") == 1
    assert "loss_kd_decoder1=" in caplog.text


def test_names_a_language_that_it_does_not_have(build, collate):
    with pytest.raises(ValueError, match=r"must be of \['es'\].*has \['ru'\].*--langs"):
        build("experts", langs=["es"])(**collate("a1", "a2"))


@pytest.mark.parametrize(
    "conf, message",
    [
        ({"autocast": "int8"}, "autocast must be of .*bfloat16.*got 'int8'"),
        ({"langs": ["es", "xx"]}, "must be a code of the table, but got 'xx'"),
    ],
)
def test_options_are_checked(build, conf, message):
    with pytest.raises(ValueError, match=message):
        build("multi", **conf)


def test_features_for_statistics(build, collate):
    model, given = build("experts"), collate("a2", "a1")
    feats = model.collect_feats(given["speech"], given["speech_lengths"])
    batch = model.batch(given["speech"], given["speech_lengths"], **text(given))
    assert torch.equal(feats["feats"], batch.mel_BTM)
    assert torch.equal(feats["feats_lengths"], batch.frames_B)


def test_spread_is_the_inverse_of_counting():
    counted_BU = torch.tensor([[True, False, True], [False, True, False]])
    spread_BU = spread(torch.tensor([1.0, 2.0, 3.0]), counted_BU)
    assert spread_BU.tolist() == [[1, 0, 2], [0, 3, 0]]
