"""The task: options, one backbone for all components, data, optimizer."""

import argparse

import pytest
import torch
import yaml
from espnet2.tasks.abs_task import IteratorOptions

from espnet_lora_experts.plugin.sampler import LanguageSampler, ShardedSampler
from espnet_lora_experts.plugin.task import LoraExpertsTask

LANGS = ["es", "ja", "ru"]


def test_one_option_names_the_backbone_everywhere(arguments, folder_30s):
    args = arguments(model_conf={"languages": ["es"]})
    LoraExpertsTask.build_model(args)
    named = [args.frontend_conf, args.encoder_conf, args.decoder_conf]
    assert [conf["backbone"] for conf in named] == [str(folder_30s)] * 3
    assert args.bpemodel == str(folder_30s)


def test_the_tokenizers_option_names_the_backbone_too(folder_30s, arguments):
    """As stock asr.sh gives it, with the sampling rate."""
    args = arguments("--bpemodel", str(folder_30s), "--frontend_conf", "fs=16k")
    args.backbone, args.model_conf = None, {"languages": ["es"]}
    model = LoraExpertsTask.build_model(args)
    assert model.backbone.name == str(folder_30s)


def test_another_sampling_rate_is_an_error(arguments):
    args = arguments("--frontend_conf", "fs=8k", model_conf={"languages": ["es"]})
    with pytest.raises(ValueError, match="fs must be 16k.*but got 8k.*--fs 16k"):
        LoraExpertsTask.build_model(args)


def test_config_file_alone_builds_the_same_model(arguments, collate):
    """ESPnet's config.yaml, without ``--backbone``, as its packed models have it."""
    args = arguments(model_conf={"languages": ["es"], "r": 2})
    model = LoraExpertsTask.build_model(args)
    saved = argparse.Namespace(**yaml.safe_load(yaml.safe_dump(vars(args))))
    saved.backbone = None
    again = LoraExpertsTask.build_model(saved)
    batch = collate("a2")
    assert torch.equal(model(**batch)[0], again(**batch)[0])


def test_defaults_are_ours(arguments):
    args = arguments()
    chosen = (args.frontend, args.encoder, args.decoder, args.preprocessor, args.model)
    experts = ("whisper_experts",) * 3
    assert chosen == ("whisper_log_mel", *experts, "lora_expert")
    assert args.iterator_type == "task" and args.normalize is None
    assert "lang" in LoraExpertsTask.optional_data_names()
    assert {"text_spk2", "prompt"} <= set(LoraExpertsTask.optional_data_names())


def test_sampling_weights_come_from_the_command_line(arguments):
    args = arguments("--sampler_conf", "weights={es: 1.0, ru: 0.25}")
    assert args.sampler_conf == {"weights": {"es": 1.0, "ru": 0.25}}


def test_optimizer_holds_trained_parameters_only(arguments, build):
    model = build("experts", langs=["es"])
    args = arguments(optim="adamw", optim_conf={"lr": 0.5, "weight_decay": 0.25})
    [optimizer] = LoraExpertsTask.build_optimizers(args, model)
    held = [p for group in optimizer.param_groups for p in group["params"]]
    assert held == [p for p in model.parameters() if p.requires_grad]
    assert (optimizer.defaults["lr"], optimizer.defaults["weight_decay"]) == (0.5, 0.25)


@pytest.mark.parametrize("options", [{}, {"lr": "3e-3"}])
def test_optimizer_needs_a_rate(arguments, build, options):
    args = arguments(optim="adamw", optim_conf=options)
    with pytest.raises(ValueError, match="optim_conf must have a number as lr, but"):
        LoraExpertsTask.build_optimizers(args, build("multi"))


@pytest.fixture
def factory(arguments, corpus):
    """ESPnet's iterator factory over the corpus."""

    def factory(
        distributed=False,
        train=True,
        languages=LANGS,
        sampler_conf=None,
        preprocessor_conf=None,
        **changed,
    ):
        args = arguments(
            use_preprocessor=True,
            num_workers=0,
            sampler_conf=sampler_conf or {},
            preprocessor_conf=preprocessor_conf or {},
            model_conf={"languages": languages},
        )
        names = (("wav.scp", "speech", "sound"), ("text", "text", "text"))
        data = [(str(corpus.path / f), *rest) for f, *rest in names]
        data += [(str(corpus.path / "utt2lang"), "lang", "text")]
        options = {
            "preprocess_fn": LoraExpertsTask.build_preprocess_fn(args, train),
            "collate_fn": LoraExpertsTask.build_collate_fn(args, train),
            "data_path_and_name_and_type": data,
            "shape_files": [str(corpus.path / "utt2num_samples")],
            "batch_type": "unsorted",
            "batch_size": 1,
            "batch_bins": 70_000,
            "num_batches": None,
            "max_cache_size": 0.0,
            "max_cache_fd": 0,
            "allow_multi_rates": False,
            "distributed": distributed,
            "num_iters_per_epoch": None,
            "train": train,
        }
        options = IteratorOptions(**{**options, **changed})
        return LoraExpertsTask.build_task_iter_factory(args, options, "train")

    return factory


def test_batches_carry_each_utterances_language_and_text(factory, corpus, collate):
    seen = []
    for utts, batch in factory(train=False).build_iter(1):
        expected = collate(*utts)
        for name in ("speech", "text", "lang", "speech_lengths", "text_lengths"):
            assert torch.equal(batch[name], expected[name]), name
        seen += utts
    assert sorted(seen) == sorted(corpus.utts)


def test_validation_is_every_utterance_once_and_training_is_weighted(factory):
    train, valid = factory().sampler, factory(train=False).sampler
    assert isinstance(train, LanguageSampler) and train.shuffle and not valid.shuffle
    assert train.quota == {"es": 2, "ja": 2, "ru": 2}
    assert valid.quota == {"es": 3, "ja": 1, "ru": 2}
    assert train.batch_bins == 70_000


def test_a_recipe_of_one_language_needs_no_table_of_them(factory, corpus):
    names = (("wav.scp", "speech", "sound"), ("text", "text", "text"))
    data = [(str(corpus.path / f), *rest) for f, *rest in names]
    made = factory(
        train=False,
        languages=["ru"],
        preprocessor_conf={"language": "ru"},
        data_path_and_name_and_type=data,
    )
    assert made.sampler.quota == {"ru": 6}
    assert all("lang" in batch for _, batch in made.build_iter(1))


def test_a_job_may_train_some_of_the_corpus_languages(factory):
    assert factory(languages=["es"]).sampler.quota == {"es": 3}
    assert factory(train=False, languages=["es", "ru"]).sampler.quota == {
        "es": 3,
        "ru": 2,
    }


def test_texts_beyond_the_decoders_positions_or_their_speech_are_left_out(
    factory, corpus, tmp_path, caplog
):
    texts = {utt: text for utt, (_, _, text) in corpus.utts.items()}
    texts |= {"a1": "д" * 14, "a5": "т" * 9}  # two bytes each: 33 and 23 tokens
    texts["a6"] = "x" * 26  # 31 tokens, 25 encoder positions
    path = tmp_path / "text"
    path.write_text("".join(f"{u} {t}\n" for u, t in texts.items()), "utf-8")
    data = [(str(corpus.path / "wav.scp"), "speech", "sound")]
    data += [(str(path), "text", "text")]
    data += [(str(corpus.path / "utt2lang"), "lang", "text")]
    with caplog.at_level("WARNING"):
        left = factory(train=False, data_path_and_name_and_type=data).sampler
    assert left.quota == {"es": 2, "ja": 1, "ru": 1}
    assert not {"a1", "a6"} & {*left.utts}
    assert "2 utterance(s) have more tokens than the decoder's 32" in caplog.text
    assert "left out: a1 ..." in caplog.text


def test_sampling_weights_arrive(factory):
    weights = {"es": 1.0, "ja": 1.0, "ru": 4.0}
    sampler = factory(sampler_conf={"weights": weights}).sampler
    assert sampler.quota == {"es": 1, "ja": 1, "ru": 4}


def test_ranks_get_shards(factory, monkeypatch):
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    sampler = factory(distributed=True).sampler
    assert isinstance(sampler, ShardedSampler) and (
        sampler.rank,
        sampler.world_size,
    ) == (
        1,
        2,
    )
    assert sampler.sampler.min_batch_size == 2


@pytest.mark.parametrize(
    "change, message",
    [
        ({"shape_files": []}, "train_shape_file .* must name .*stage 4"),
        (
            {"data_path_and_name_and_type": [("dump/wav.scp", "speech", "sound")]},
            "data must have languages: .*dump/utt2lang,lang,text",
        ),
    ],
)
def test_data_options_are_checked(factory, change, message):
    with pytest.raises(ValueError, match=message):
        factory(**change)
