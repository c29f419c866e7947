"""ESPnet's decoding with our models: scores, languages, tokens, packed models."""

import itertools
from contextlib import contextmanager
from pathlib import Path

import pytest
import soundfile
import torch
from espnet2.bin.asr_inference import BatchBeamSearch, BeamSearch
from espnet2.utils.yaml_no_alias_safe_dump import yaml_no_alias_safe_dump

from espnet_lora_experts.plugin.inference import Speech2Text
from espnet_lora_experts.plugin.lm import WhisperLMTask
from espnet_lora_experts.plugin.packing import as_lora, pack
from espnet_lora_experts.plugin.preprocessor import encode_language
from espnet_lora_experts.plugin.task import LoraExpertsTask
from espnet_lora_experts.whisper.systems import decode

LANGS = ["es", "ja", "ru"]
LM_WEIGHT = 0.5
KINDS = {
    "multi": ("lora_expert", {"languages": LANGS, "r": 2, "expert": "multi"}),
    "one": ("lora_expert", {"languages": ["es"], "r": 2}),
    "experts": ("lora_expert", {"languages": LANGS, "r": 2}),
    "mole": ("lora_mole", {"languages": LANGS, "merged_layers": 1}),
    "student": ("lora_distill", {"languages": LANGS, "r": 3}),
}


@pytest.fixture(scope="module")
def files(arguments, experts, shake, tmp_path_factory):
    """Config and checkpoint of a model of a kind, as a training leaves them."""

    def files(kind):
        model, conf = KINDS[kind]
        conf = {**conf, "experts": experts} if kind in ("mole", "student") else conf
        args = arguments(model=model, model_conf=conf)
        torch.manual_seed(0)
        built = LoraExpertsTask.build_model(args)
        shake([p for p in built.parameters() if p.requires_grad], 0)
        path = tmp_path_factory.mktemp(kind)
        (path / "config.yaml").write_text(yaml_no_alias_safe_dump(vars(args)), "utf-8")
        torch.save(built.state_dict(), path / "best.pth")
        return {
            "asr_train_config": path / "config.yaml",
            "asr_model_file": path / "best.pth",
        }

    return files


@pytest.fixture(scope="module")
def lm_files(folder_30s, token_list, tmp_path_factory):
    """Those of a language model that likes token 0."""
    path = tmp_path_factory.mktemp("lm")
    cmd = ["--token_type", "hugging_face", "--bpemodel", str(folder_30s)]
    cmd += ["--token_list", str(token_list), "--output_dir", str(path)]
    args = WhisperLMTask.get_parser().parse_args(cmd)
    args.lm_conf = {"unit": 8, "nlayers": 1}
    torch.manual_seed(0)
    built = WhisperLMTask.build_model(args)
    with torch.no_grad():
        built.lm.decoder.weight *= 5
        built.lm.decoder.bias[0] += 8
    (path / "config.yaml").write_text(yaml_no_alias_safe_dump(vars(args)), "utf-8")
    torch.save(built.state_dict(), path / "lm.pth")
    return {"lm_train_config": path / "config.yaml", "lm_file": path / "lm.pth"}


@pytest.fixture(scope="module")
def load(files, lm_files):
    """A model in ESPnet's decoding; each kind is built once."""
    made = {}

    def load(kind, lm=False, **options):
        made.setdefault(kind, files(kind))
        named = {**made[kind], **(lm_files if lm else {})}
        options = {"beam_size": 3, "nbest": 3, "maxlenratio": 0.3, **options}
        return Speech2Text(**named, lm_weight=LM_WEIGHT, **options)

    return load


@pytest.fixture
def speech(corpus):
    return soundfile.read(corpus.path / "a2.flac", dtype="float32")[0]


def ids_and_scores(results):
    return [
        (h.yseq.tolist(), pytest.approx(float(h.score), abs=1e-3)) for *_, h in results
    ]


@torch.no_grad()
@pytest.mark.parametrize("kind", ["multi", "one", "mole"])
@pytest.mark.parametrize("lm", [False, True])
def test_scores_are_those_of_decoder_and_language_model(load, speech, kind, lm):
    """Of the text and its end; the prompt is given, not recognized."""
    speech2text = load(kind, lm)
    model = speech2text.asr_model
    for _, _, ids, hypothesis in speech2text(speech):
        encoded = model.encoded(torch.tensor(speech)[None], torch.tensor([len(speech)]))
        encoded.route = model.decoder.route
        most = int(speech2text.maxlenratio * encoded.hidden_BPD.shape[1])
        after = [*ids, model.eos][:most]  # an end at the limit is not recognized
        y_BUD = decode(model.backbone, model.system, encoded, hypothesis.yseq[None])
        scores = model.backbone.logits(y_BUD)[0].log_softmax(-1)
        expected = sum(scores[3 + i, token] for i, token in enumerate(after))
        if lm:
            scorer = speech2text.beam_search.full_scorers["lm"].lm
            scores = scorer(torch.tensor([[model.eos, *ids]]), None)[0][0]
            scores = scores.log_softmax(-1)
            expected += LM_WEIGHT * sum(scores[i, x] for i, x in enumerate(after))
        assert float(hypothesis.score) == pytest.approx(float(expected), abs=1e-3)


@pytest.mark.parametrize("lm", [False, True])
def test_batched_hypotheses_score_as_each_alone(load, speech, lm):
    speech2text = load("multi", lm)
    assert type(speech2text.beam_search) is BatchBeamSearch
    batched = ids_and_scores(speech2text(speech))
    speech2text.beam_search.__class__ = BeamSearch
    assert ids_and_scores(speech2text(speech)) == batched


def test_a_language_model_changes_the_transcript_and_token_0_stays(load, speech):
    """Whisper's "!", which ESPnet takes for a blank."""
    [(text, tokens, ids, _), *_] = load("multi", lm=True)(speech)
    assert set(ids) == {0} and set(tokens) == {"!"}
    assert text == "!" * len(ids) and text
    assert text != load("multi")(speech)[0][0]


@pytest.mark.parametrize("code", LANGS)
def test_a_given_language_is_the_prompts(load, speech, code):
    for kind, given in itertools.product(
        ("multi", "experts", "mole"), (code, torch.tensor(encode_language(code)))
    ):
        speech2text = load(kind)
        yseq = speech2text(speech, given)[0][3].yseq.tolist()
        assert yseq[:4] == speech2text.prompter.prompt(code)


def test_a_language_is_found_where_none_is_given(load, speech):
    one, multi, mole = (load(kind) for kind in ("one", "multi", "mole"))
    assert one(speech)[0][3].yseq[1] == one.prompter.language("es")
    lengths = torch.tensor([len(speech)])
    for speech2text in (multi, mole):
        encoded = speech2text.asr_model.encoded(torch.tensor(speech)[None], lengths)
        [[code], _] = speech2text.recognizer.find_languages(encoded)
        found = speech2text(speech)[0][3].yseq[1]
        assert found == speech2text.prompter.language(code)


def test_several_experts_need_the_language(load, speech):
    with pytest.raises(ValueError, match="must be told the language"):
        load("experts")(speech)


def test_a_language_without_an_expert_is_an_error(load, speech):
    with pytest.raises(ValueError, match="must be of .*'es'.*but .*'de'"):
        load("experts")(speech, "de")


def test_a_batch_is_its_utterances(load, speech):
    """As ESPnet's ``--batch_size`` gives it, padded, and as a list."""
    speech2text, short = load("multi"), speech[:3000]
    alone = [ids_and_scores(speech2text(x, "ru")) for x in (speech, short)]
    padded = torch.zeros(2, len(speech))
    padded[0], padded[1, : len(short)] = torch.tensor(speech), torch.tensor(short)
    langs = torch.tensor(encode_language("ru")).expand(2, 2)
    lengths = torch.tensor([len(speech), len(short)])
    batch = speech2text.batch_decode(padded, lengths, langs, torch.tensor([2, 2]))
    assert [ids_and_scores(x) for x in batch] == alone
    batch = speech2text.batch_decode([speech, short], lang=["ru", "ru"])
    assert [ids_and_scores(x) for x in batch] == alone


def test_there_is_no_ctc(load, caplog):
    speech2text = load("one", ctc_weight=0.5)
    assert "ctc_weight: 0.5 becomes 0.0" in caplog.text
    assert speech2text.beam_search.weights["decoder"] == 1.0


@pytest.mark.parametrize("kind", ["one", "mole", "student"])
def test_a_packed_model_decodes_elsewhere(
    files, experts, speech, tmp_path, monkeypatch, kind
):
    """Of a MoLE with its experts, of a student without them."""
    named = files(kind)
    config, model = named["asr_train_config"], named["asr_model_file"]
    monkeypatch.chdir(config.parent)
    packed = tmp_path / "model.zip"
    pack({"asr_model_file": model}, {"asr_train_config": config}, packed)
    assert {path.name for path in config.parent.iterdir()} == {config.name, model.name}
    before = Speech2Text(**named, beam_size=2)(speech)
    config.unlink(), model.unlink()
    monkeypatch.chdir(tmp_path)
    with hidden(experts):
        after = Speech2Text.from_pretrained(packed, beam_size=2)(speech)
    assert ids_and_scores(after) == ids_and_scores(before)


@contextmanager
def hidden(experts):
    """Without the experts' folders."""
    away = {Path(path): Path(f"{path}.away") for path in experts.values()}
    for path, other in away.items():
        path.rename(other)
    try:
        yield
    finally:
        for path, other in away.items():
            other.rename(path)


def test_a_student_is_packed_as_the_lora_that_it_became():
    conf = {"languages": ["es"], "experts": {"es": "x"}, "alpha": 2, "lsm_weight": 0.1}
    lora = as_lora(conf)
    assert lora["r"] == 64 and lora["lsm_weight"] == 0.1
    assert lora["expert"] == "student" and not {"experts", "alpha"} & set(lora)


def test_a_missing_zip_is_named():
    with pytest.raises(FileNotFoundError, match="no.zip must be a model that asr.sh"):
        Speech2Text.from_pretrained("no.zip")
