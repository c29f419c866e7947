"""Speech to text: any input, any batch, the language given or found."""

import json
import weakref
from functools import partial

import numpy as np
import pytest
import soundfile
import torch

import espnet_lora_experts
from espnet_lora_experts.inference import Speech2Text
from espnet_lora_experts.inference import batches as sizes
from espnet_lora_experts.inference import speech2text as module
from espnet_lora_experts.inference.recordings import Recording
from espnet_lora_experts.inference.segmentation import Segmentation
from espnet_lora_experts.whisper.systems import Single

LANGS = ["es", "ru", "ja"]
GIVEN = ["ru", "es", "ru", "ja", "es"]  # mixed, not sorted
SYSTEMS = ["vanilla", "multi", "mono", "mole", "soft"]
every_system = pytest.mark.parametrize("name", SYSTEMS)


def same(results, others):
    assert len(results) == len(others) > 0
    for a, b in zip(results, others, strict=True):
        assert (a.text, a.lang, a.tokens) == (b.text, b.lang, b.tokens)
        assert a.score == pytest.approx(b.score, abs=1e-3)
        assert a.posteriors == pytest.approx(b.posteriors, abs=1e-4)


@every_system
@pytest.mark.parametrize("given", [GIVEN, None])
def test_a_list_is_its_clips_one_by_one(load, clips, name, given):
    """In order, whatever the batches: all in one, some, or one each."""
    if (name, given) == ("mono", None):
        pytest.skip("experts must be told")
    alone = [load(name)(clip, given and given[i]) for i, clip in enumerate(clips)]
    assert len({result.score for result in alone}) == len(clips)
    for seconds in (1000, 4, 0.1):
        same(load(name, batch_seconds=seconds)(clips, given), alone)


@pytest.mark.parametrize("pad", [False, True])
@pytest.mark.parametrize("seconds", [0.1, 4, 61, 95])
def test_batches_of_the_encoder_fit(load, clips, pad, seconds):
    speech2text = load("multi", batch_seconds=seconds, pad_to_30s=pad)
    batches = speech2text._encoder_batches(clips)
    assert sorted(i for batch in batches for i in batch) == [0, 1, 2, 3, 4]
    cost = [480_000 if pad else len(clip) + 64 * 160 for clip in clips]
    sizes = [max(cost[i] for i in batch) * len(batch) for batch in batches]
    limit = seconds * 16_000
    assert all(n <= limit or len(b) == 1 for n, b in zip(sizes, batches, strict=True))


@pytest.mark.parametrize(("name", "most"), [("MOST_ROWS", 2), ("MOST_KEYS", 13_000)])
def test_batches_of_the_decoder_fit(load, clips, monkeypatch, name, most):
    """And several batches of the encoder may make one of the decoder."""
    speech2text = load("multi", batch_seconds=0.1)
    assert [len(b) for b in speech2text._decoder_batches(clips)] == [5]
    expected = speech2text(clips)
    monkeypatch.setattr(sizes, name, most)
    batches = speech2text._decoder_batches(clips)
    assert max(map(len, batches)) == 2 and sum(map(len, batches)) == 5
    same(speech2text(clips), expected)


@every_system
def test_one_clip_of_30_s_and_fifteen_of_1_s(load, name):
    rng = np.random.RandomState(0)
    lengths = [16_000] * 7 + [480_000] + [16_000] * 8
    clips = [rng.uniform(-0.5, 0.5, n).astype(np.float32) for n in lengths]
    langs = (GIVEN * 4)[:16]
    alone = [load(name)(clips[i], langs[i]) for i in (0, 7, 15)]
    found = load(name)(clips, langs)
    assert len(found) == 16
    same([found[i] for i in (0, 7, 15)], alone)


def test_paths_arrays_and_tensors_are_one(load, clips, tmp_path):
    path = tmp_path / "clip.flac"
    soundfile.write(path, clips[0], 16_000)
    stored, _ = soundfile.read(path, dtype="float32")
    speech2text = load("multi")
    expected = [speech2text(stored, "ru")]
    for speech in (
        path,
        str(path),
        torch.from_numpy(stored),
        stored.astype(np.float64),
    ):
        same([speech2text(speech, "ru")], expected)
        same(speech2text([speech], "ru"), expected)
        same(speech2text((speech,), ["ru"]), expected)


def test_no_clips_are_no_results(load):
    assert load("multi")([]) == [] == load("mono")([], [])


@every_system
def test_given_language_is_the_results(load, clips, name):
    results = load(name)(clips, GIVEN)
    assert [result.lang for result in results] == GIVEN
    assert [result.posteriors for result in results] == [{}] * 5


@pytest.mark.parametrize("name", ["vanilla", "multi", "mole"])
def test_found_language_is_the_most_probable(load, clips, name):
    speech2text = load(name)
    results = speech2text(clips)
    for result in results:
        assert list(result.posteriors) == LANGS
        assert sum(result.posteriors.values()) == pytest.approx(1)
        assert result.lang == max(result.posteriors, key=result.posteriors.get)
    assert speech2text.find_languages(clips) == [result.lang for result in results]


@pytest.mark.parametrize("name", ["multi", "mole"])
def test_telling_the_found_language_changes_nothing_but_posteriors(load, clips, name):
    speech2text = load(name)
    found = speech2text(clips)
    told = speech2text(clips, [result.lang for result in found])
    assert [(r.text, r.tokens) for r in told] == [(r.text, r.tokens) for r in found]


def test_two_pass_runs_the_experts_of_the_finders_languages(load, clips):
    finder = load("vanilla")
    found = finder.find_languages(clips)
    speech2text = load("mono").two_pass(finder)
    same(speech2text(clips), load("mono")(clips, found))
    same(speech2text(clips, GIVEN), load("mono")(clips, GIVEN))  # told: no first pass


def test_two_pass_takes_any_finder(load, clips):
    finder = load("vanilla")
    finder.find_languages = lambda clips: GIVEN
    same(load("mono").two_pass(finder)(clips), load("mono")(clips, GIVEN))


@every_system
def test_folding_the_gates_changes_nothing(load, clips, name):
    """Against the same decoder with every gate computed in every layer."""
    speech2text = load(name, maxlenratio=0)
    for clip, lang in zip(clips, GIVEN, strict=True):
        [unfolded] = speech2text.recognizer(speech2text._encode([clip], [lang]), [lang])
        same([speech2text(clip, lang)], [speech2text._said(unfolded)])


def test_experts_differ_by_language(load, clips):
    speech2text = load("mono")
    scores = {speech2text(clips[0], lang).score for lang in LANGS}
    assert len(scores) == 3


def test_one_backbone_serves_all_systems(whisper, folders, clips, load, recwarn):
    """Loaded one after the other into one Whisper; folding leaves no trace."""
    before = {n: p.clone() for n, p in whisper.hf.named_parameters()}
    for name in ("multi", "mono", "mole", "soft", "multi"):
        shared = Speech2Text.from_pretrained(folders[name], whisper)
        tokens = [x.hf.proj_out.weight for x in (shared.backbone, whisper)]
        assert tokens[0].data_ptr() == tokens[1].data_ptr()
        same(shared(clips, GIVEN), load(name)(clips, GIVEN))
    assert "was active" not in " ".join(str(w.message) for w in recwarn)
    after = dict(whisper.hf.named_parameters())
    assert all(
        torch.equal(after[n], value) for n, value in before.items() if n in after
    )


def test_vanilla_is_padded_to_30_s(load, clips, whisper):
    assert load("vanilla").pad_to_30s and not load("multi").pad_to_30s
    encoded = load("vanilla")._encode(clips[:1], None)
    assert encoded.hidden_BPD.shape[1] == 1500
    assert load("multi")._encode(clips[:1], ["es"]).hidden_BPD.shape[1] == 61


def test_decoding_options_arrive(load, clips):
    results = load("multi", max_tokens=2)(clips, GIVEN)
    assert max(len(result.tokens) for result in results) == 2


@every_system
def test_autocast_changes_rounding_only(load, clips, name):
    """Scores within bfloat16's precision; the features stay in full precision."""
    plain, cast = (
        load(name, max_tokens=1),
        load(name, max_tokens=1, autocast="bfloat16"),
    )
    pairs = list(zip(plain(clips, GIVEN), cast(clips, GIVEN), strict=True))
    alike = [(a, b) for a, b in pairs if a.tokens == b.tokens]
    assert len(alike) >= len(pairs) - 1
    for a, b in alike:
        assert a.score != b.score
        assert a.score == pytest.approx(b.score, abs=0.05)


def test_other_gates_keep_all_options(load):
    options = {"pad_to_30s": True, "batch_seconds": 7.0, "autocast": "bfloat16"}
    options |= {"finder": load("vanilla"), "beam_size": 3, "maxlenratio": 0.5}
    mono = load(
        "mono", segmentation="windows", max_segment=9.0, min_pause=2.0, **options
    )
    other = mono.with_system(Single(LANGS, "es"))
    state = vars(other) | vars(other.recognizer.options)
    assert {name: state[name] for name in options} == options
    assert other.segmentation == mono.segmentation == Segmentation("windows", 9.0, 2.0)
    assert other.system.expert == "es" and other.backbone is mono.backbone


def test_unknown_autocast_is_an_error(load):
    with pytest.raises(ValueError, match="autocast must be of .* 'half'"):
        load("multi", autocast="half")


def test_transcripts_are_bounded_by_each_clips_own_length(load, clips):
    """Padding does not count: ``vanilla`` is padded to 30 s, a batch to its longest."""
    frames = [-(-len(clip) // 320) for clip in clips]
    for name in ("vanilla", "multi"):
        speech2text = load(name, maxlenratio=0.1)
        speech2text.recognizer.never_K[speech2text.prompter.eot] = float("-inf")
        results = speech2text(clips, GIVEN)
        most = [min(max(1, count // 10), 224) for count in frames]
        assert [len(result.tokens) for result in results] == most
        assert not any(result.ended for result in results)


def test_progress_counts_every_clip(load, clips):
    done = []
    load("mono", batch_seconds=5)(clips, GIVEN, progress=done.append)
    assert sorted(done) == [1, 2, 2]  # ja, es, ru


@pytest.mark.parametrize(
    "lang, message",
    [
        ("fr", r"must be of this system's \['es', 'ru', 'ja'\], got \['fr'\]"),
        ("xx", "must be a code of the table, but got 'xx'"),
        (["es", "ru"], "must be one or 5 codes, but got 2"),
        (None, "must be told the language, but got None"),
    ],
)
def test_wrong_languages_are_errors(load, clips, lang, message):
    with pytest.raises(ValueError, match=message):
        load("mono")(clips, lang)


@pytest.mark.parametrize(
    "speech, message",
    [
        (np.zeros((100, 2), np.float32), r"got shape \(100, 2\)"),
        ("nowhere.wav", "nowhere.wav must be a readable audio file"),
    ],
)
def test_wrong_speech_is_an_error(load, speech, message):
    with pytest.raises(ValueError, match=message):
        load("multi")(speech)


def test_another_backbone_is_an_error(folders, tmp_path):
    what = json.loads((folders["multi"] / "system.json").read_text())
    what["backbone"]["sha256"] = "0" * 64
    (tmp_path / "system.json").write_text(json.dumps(what))
    with pytest.raises(ValueError, match="must run on the backbone 000000000000"):
        Speech2Text.from_pretrained(tmp_path)


def describe(folder, backbone, kind):
    what = {"name": backbone.name, "sha256": backbone.sha256}
    what = {"type": kind, "languages": LANGS, "backbone": what}
    (folder / "system.json").write_text(json.dumps(what))
    return folder


@pytest.mark.parametrize("options", [{}, {"max_tokens": 3}])
def test_folder_of_vanilla_is_vanilla(whisper, load, clips, tmp_path, options):
    loaded = Speech2Text.from_pretrained(
        describe(tmp_path, whisper, "vanilla"), whisper, **options
    )
    assert loaded.pad_to_30s and loaded.recognizer.options.suppress_tokens
    same(loaded(clips), load("vanilla", **options)(clips))


def test_vanilla_may_be_told_otherwise(whisper):
    natural = {"pad_to_30s": False, "suppress_tokens": False}
    speech2text = Speech2Text.vanilla(whisper, LANGS, **natural)
    assert not speech2text.pad_to_30s
    assert not speech2text.recognizer.options.suppress_tokens


def test_folder_of_two_passes_says_how_to_have_them(whisper, tmp_path):
    with pytest.raises(ValueError, match=r"must be a system by itself, but two_pass"):
        Speech2Text.from_pretrained(describe(tmp_path, whisper, "two_pass"), whisper)


NOISE = np.random.RandomState(1).uniform(-0.5, 0.5, 35 * 16_000).astype(np.float32)
CUT = {"segmentation": "windows", "max_segment": 10.0}


@pytest.mark.parametrize("name", ["multi", "mole"])
def test_a_long_recording_is_its_segments(load, clips, name):
    """Each segment is what it is as a clip of its own, its language included."""
    speech2text = load(name, **CUT)
    short, long = speech2text([clips[0], NOISE])
    assert [(s.start, s.end) for s in short.segments] == [(0.0, 9000 / 16_000)]
    assert len(long.segments) > 3
    cuts = [round(s.start * 16_000) for s in long.segments] + [len(NOISE)]
    assert long.segments[-1].end == 35.0
    parts = [NOISE[a:b] for a, b in zip(cuts, cuts[1:], strict=False)]
    same(long.segments, speech2text(parts))
    same([short], [speech2text(clips[0])])


def test_given_language_is_that_of_all_segments(load):
    result = load("mono", **CUT)(NOISE, "ja")
    assert {segment.lang for segment in result.segments} == {"ja"} == {result.lang}


def test_two_pass_finds_the_language_of_each_segment(load):
    finder = load("vanilla")
    finder.find_languages = lambda clips: GIVEN[: len(clips)]
    result = load("mono", **CUT).two_pass(finder)(NOISE)
    count = len(result.segments)
    assert [segment.lang for segment in result.segments] == GIVEN[:count]


@pytest.mark.parametrize("seconds", [1, 29, 35, 120])
@pytest.mark.parametrize("segmentation", ["auto", "vad", "windows"])
def test_silence_has_no_segment_and_no_text(load, clips, seconds, segmentation):
    silence = np.zeros(seconds * 16_000, np.float32)
    speech2text = load("multi", segmentation=segmentation)
    for lang in (None, "ru"):
        result = speech2text(silence, lang)
        assert (result.text, result.tokens, result.segments) == ("", [], ())
        assert result.lang == (lang or "") and result.score == 0 and result.ended
    if segmentation != "vad":
        done = []
        _, said, _ = speech2text([silence, clips[0], silence], progress=done.append)
        same([said], [speech2text(clips[0])])
        assert sum(done) == 3


def test_progress_counts_recordings_not_segments(load, clips, monkeypatch):
    monkeypatch.setattr(sizes, "MOST_ROWS", 1)
    done = []
    load("multi", **CUT)([NOISE, clips[0], NOISE], progress=done.append)
    assert len(done) > 8 and sum(done) == 3 and set(done) == {0, 1}


def test_only_one_pool_of_recordings_is_held(load, monkeypatch):
    """What was transcribed is freed before more is read."""
    held, alive = [], []

    def watched(speech, cut):
        for one in speech:
            samples = one()
            alive.append(sum(samples_of() is not None for samples_of in held))
            held.append(weakref.ref(samples))
            yield [Recording(samples, cut(samples))]
            del samples

    monkeypatch.setattr(module, "pools", watched)
    results = load("multi")([partial(np.ones, 4000, np.float32)] * 3)
    assert len(results) == 3 and alive == [0, 0, 0]


def test_a_language_that_whisper_lacks_borrows_a_token(whisper, clips):
    """Asturian is told by the Spanish token; Esperanto's too."""
    speech2text = Speech2Text.vanilla(whisper, ["ast", "ru"])
    result = speech2text(clips[0], "ast")
    spanish = Speech2Text.vanilla(whisper, ["es", "ru"])(clips[0], "es")
    assert (result.lang, result.tokens) == ("ast", spanish.tokens)


def test_device_is_where_everything_is(load, folders):
    assert load("mole", device="cpu").backbone.hf.device.type == "cpu"
    with pytest.raises(ValueError, match="device must be one that torch .* got abacus"):
        load("multi", device="abacus")


@pytest.mark.parametrize("content", [None, "not json", '{"type": "single"}'])
def test_a_folder_that_is_no_model_is_named(tmp_path, content):
    if content:
        (tmp_path / "system.json").write_text(content)
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        Speech2Text.from_pretrained(tmp_path)
    assert str(tmp_path) in str(error.value)


def test_exported_at_the_top():
    assert espnet_lora_experts.Speech2Text is Speech2Text
