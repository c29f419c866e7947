"""ESPnet's trainer on real files: resume, ranks, accumulation, export."""

import argparse
import itertools
import json
import logging
import math
import multiprocessing
import os
import shutil
import signal

import pytest
import torch
import yaml
from espnet2.train.distributed_utils import DistributedOption
from espnet2.train.reporter import Reporter
from peft import PeftModel
from safetensors.torch import load_file
from torch.optim.optimizer import register_optimizer_step_pre_hook
from transformers import WhisperForConditionalGeneration

from espnet_lora_experts.bin import train
from espnet_lora_experts.inference import Speech2Text
from espnet_lora_experts.plugin.checkpoint import HASH_KEY
from espnet_lora_experts.plugin.trainer import ExpertTrainer
from espnet_lora_experts.whisper.systems import deployed_parameters

LANGS = ["es", "ja", "ru"]


@pytest.fixture(scope="module")
def command(folder_30s, token_list, corpus, tmp_path_factory):
    """The command line of a training; options by name, confs as dictionaries."""

    def command(output_dir, **options):
        options = {
            "model": "lora_expert",
            "model_conf": {"languages": LANGS, "r": 2},
            "optim": "adamw",
            "optim_conf": {"lr": 0.01},
            "max_epoch": 2,
            "batch_bins": 70_000,
            "seed": 3,
            "num_workers": 0,
            "best_model_criterion": [["valid", "loss", "max"]],  # not the last epoch
            "keep_nbest_models": 1,
            "use_preprocessor": True,
            "use_matplotlib": False,
            "use_tensorboard": False,
            "backbone": str(folder_30s),
            "token_list": str(token_list),
            "output_dir": str(output_dir),
            **options,
        }
        config = tmp_path_factory.mktemp("conf") / "train.yaml"
        config.write_text(yaml.safe_dump(options))
        cmd = ["--config", str(config), "--ngpu", "0"]
        for part in ("train", "valid"):
            for table in (
                "wav.scp,speech,sound",
                "text,text,text",
                "utt2lang,lang,text",
            ):
                data = f"--{part}_data_path_and_name_and_type"
                cmd += [data, str(corpus.path / table)]
            cmd += [f"--{part}_shape_file", str(corpus.path / "utt2num_samples")]
        return cmd

    return command


@pytest.fixture(scope="module")
def trained(command, tmp_path_factory):
    """Two epochs without interruption."""
    exp = tmp_path_factory.mktemp("exp") / "mono"
    train.main(command(exp))
    return exp


def states(exp):
    return torch.load(exp / "checkpoint.pth", weights_only=False)


def test_resumed_training_equals_an_uninterrupted_one(trained, command, tmp_path):
    """Weights, and the optimizer's moments, to the last bit."""
    train.main(command(tmp_path, max_epoch=1))
    first = states(tmp_path)["model"]
    train.main(command(tmp_path, max_epoch=2, resume=True))
    ours, theirs = states(tmp_path), states(trained)
    assert any(not torch.equal(first[n], v) for n, v in ours["model"].items())
    for name, value in theirs["model"].items():
        assert torch.equal(ours["model"][name], value), name
    moments = [s["optimizers"][0]["state"] for s in (ours, theirs)]
    for i, state in moments[1].items():
        assert torch.equal(moments[0][i]["exp_avg"], state["exp_avg"])


def test_the_seed_says_how_a_training_goes(trained, command, tmp_path):
    """The same seed gives the same losses to the last bit, another one others."""
    train.main(command(tmp_path / "same"))
    train.main(command(tmp_path / "other", seed=4))

    def losses(exp):
        stats = states(exp)["reporter"]["stats"].values()
        return [epoch[phase]["loss"] for epoch in stats for phase in ("train", "valid")]

    assert losses(tmp_path / "same") == losses(trained)
    assert losses(tmp_path / "other")[0] != losses(trained)[0]


def test_checkpoints_hold_tensors_only(trained):
    for path in trained.glob("*epoch.pth"):
        state = torch.load(path, weights_only=True)
        assert HASH_KEY in state and len(state) == 1 + 3 * 2 * 32


@pytest.fixture
def refused(command, tmp_path):
    """The one clear error of a checkpoint that cannot be resumed: file and fix."""

    def refused(**options):
        with pytest.raises(ValueError) as caught:
            train.main(command(tmp_path, resume=True, **options))
        message = str(caught.value)
        path = tmp_path / "checkpoint.pth"
        assert message.startswith(f"{path} must be a whole checkpoint of this model")
        assert message.count("must be a whole checkpoint") == 1
        assert "another --output_dir (a recipe's --expdir)" in message
        assert message.endswith(f"or remove {tmp_path} to train from the start")
        return message

    return refused


@pytest.mark.parametrize("kept", [0, 1, 2000])
def test_broken_checkpoint_is_one_clear_error(trained, refused, tmp_path, kept):
    whole = (trained / "checkpoint.pth").read_bytes()
    (tmp_path / "checkpoint.pth").write_bytes(whole[:kept])
    shutil.copy(trained / "1epoch.pth", tmp_path)  # an epoch was finished
    refused()


def test_checkpoint_without_a_part_is_one_clear_error(trained, refused, tmp_path):
    whole = states(trained)
    torch.save({"model": whole["model"]}, tmp_path / "checkpoint.pth")
    assert "(KeyError: 'reporter')" in refused()


@pytest.mark.parametrize("conf", [{"languages": ["es", "ru"]}, {"r": 4}])
def test_checkpoint_of_another_model_is_one_clear_error(
    trained, refused, tmp_path, conf
):
    shutil.copy(trained / "checkpoint.pth", tmp_path)
    message = refused(model_conf={"languages": LANGS, "r": 2, **conf})
    assert "trained tensors, but" in message and "same model_conf?" in message


def test_export_is_a_system_that_loads(trained, corpus):
    recognizer = Speech2Text.from_pretrained(trained)
    assert recognizer.system.languages == LANGS
    state = torch.load(trained / "valid.loss.best.pth", weights_only=True)
    for code in LANGS:
        held = dict(recognizer.backbone.bank.parameters_of(code))
        assert len(held) == 2 * 32
        for key, value in held.items():
            assert torch.equal(value, state[in_checkpoint(key, code)])
    assert recognizer(corpus.path / "a1.flac", "ru").lang == "ru"


def in_checkpoint(key, code):
    return f"encoder.backbone.hf.{key.removesuffix('.weight')}.expert_{code}.weight"


def test_plain_peft_loads_an_exported_expert(trained, folder_30s):
    whisper = WhisperForConditionalGeneration.from_pretrained(folder_30s)
    loaded = PeftModel.from_pretrained(whisper, trained / "experts/ru").state_dict()
    file = load_file(trained / "experts/ru/adapter_model.safetensors")
    state = torch.load(trained / "valid.loss.best.pth", weights_only=True)
    assert len(file) == 2 * 32
    for key, value in file.items():
        inside = key.removesuffix(".weight") + ".default.weight"
        ours = in_checkpoint(key.removeprefix("base_model.model."), "ru")
        assert torch.equal(loaded[inside], value) and torch.equal(value, state[ours])


def test_system_says_what_it_is(trained):
    what = json.loads((trained / "system.json").read_text())
    reporter = Reporter()
    reporter.load_state_dict(states(trained)["reporter"])
    assert what["type"] == "experts" and what["languages"] == LANGS
    assert what["epochs"] == 2
    assert what["steps"] == reporter.stats[2]["train"]["total_count"]
    assert what["checkpoint"] == "1epoch.pth"
    lora = what["deployed_params"] - base_params(what["backbone"]["name"])
    assert what["trained_params"] == lora > 0


def base_params(name):
    whisper = WhisperForConditionalGeneration.from_pretrained(name)
    return sum(p.numel() for p in whisper.parameters())


RANKED = {  # kind of model: options that make a difference between ranks
    "experts": {"unused_parameters": True},  # as in its YAML
    "one_expert": {},
    "multi": {},
    "mole": {},
    "distill": {},
    "logits_only": {},
    "full": {},
    "accumulated": {"unused_parameters": True, "accum_grad": 2},
}
KIND = {"one_expert": "experts", "accumulated": "experts"}


@pytest.fixture(scope="module")
def ranked(command, conf_of):
    """The command line of a training whose ranks can be compared."""

    def ranked(output_dir, case, **options):
        langs = ["es"] if case == "one_expert" else LANGS
        name, conf = conf_of(KIND.get(case, case), langs)
        options = {
            "model": name,
            "model_conf": conf,
            "optim": "sgd",  # Adam's first steps blow rounding up to the learning rate
            "optim_conf": {"lr": 0.1},
            "sampler_conf": {
                "weights": "proportional"
            },  # batches of three: two and one
            "best_model_criterion": [["valid", "loss", "min"]],
            **RANKED[case],
            **options,
        }
        return command(output_dir, **options)

    return ranked


def one_thread(cmd, heard, dies_in_epoch=None):
    """A rank's process; what stops it is written down."""
    torch.set_num_threads(1)
    if dies_in_epoch:
        die_in(dies_in_epoch)
    try:
        train.main(cmd)
    except Exception as error:
        heard.write_text(f"{type(error).__name__}: {error}")
        raise


def die_in(epoch):
    """Kills this process before the first step of an epoch, which has two."""
    steps = itertools.count()

    def kill(*_):
        if next(steps) == 2 * (epoch - 1):
            os.kill(os.getpid(), signal.SIGKILL)

    register_optimizer_step_pre_hook(kill)


@pytest.fixture
def two_ranks(tmp_path):
    """Trains with two gloo processes, one thread each; gives their exit codes."""

    def two_ranks(cmd, dies_in_epoch=None):
        processes = []
        meet = tmp_path / f"meet{len([*tmp_path.glob('meet*')])}"
        for rank in range(2):
            own = ["--dist_backend", "gloo", "--multiprocessing_distributed", "false"]
            own += ["--dist_init_method", f"file://{meet}"]
            own += ["--dist_world_size", "2", "--dist_rank", str(rank)]
            dies = dies_in_epoch if rank else None
            # a fork has all imports already; a second process would need 10 s for them
            process = multiprocessing.get_context("fork").Process(
                target=one_thread, args=([*cmd, *own], tmp_path / f"heard{rank}", dies)
            )
            process.start()
            processes.append(process)
        for process in processes:
            process.join(timeout=600)  # a busy machine is no error
            process.kill()
            process.join()
        return [process.exitcode for process in processes]

    return two_ranks


def losses(exp):
    """The reporter's means of each epoch."""
    epochs = states(exp)["reporter"]["stats"]
    return [
        {k: v for k, v in epochs[i][part].items() if k.startswith(("loss", "acc"))}
        for i in sorted(epochs)
        for part in ("train", "valid")
    ]


@pytest.mark.parametrize("case", RANKED)
def test_two_ranks_equal_one(ranked, two_ranks, tmp_path, case):
    """The same batches, halved between two processes; one may lack a language.

    The second epoch's losses are those of both ranks' weights after the first.
    """
    train.main(ranked(tmp_path / "one", case))
    assert two_ranks(ranked(tmp_path / "two", case)) == [0, 0]
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(one) == len(two) == 4 and abs(one[0]["loss"] - one[2]["loss"]) > 1e-3
    for ours, theirs in zip(two, one, strict=True):
        for name in ("loss", "loss_asr", "loss_kd", "loss_lid", "loss_js", "acc"):
            if name in theirs:
                assert ours[name] == pytest.approx(theirs[name], abs=1e-5, rel=1e-5)
        assert all(map(math.isfinite, ours.values()))  # where a rank lacks a language
    one, two = (states(tmp_path / n)["model"] for n in ("one", "two"))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=1e-5, rtol=1e-5)
    assert (tmp_path / "two/system.json").exists()


def test_two_ranks_of_which_one_is_killed_stop_and_resume(ranked, two_ranks, tmp_path):
    """The other rank ends at once, says why, and a rerun finishes the same training."""
    train.main(ranked(tmp_path / "one", "experts", max_epoch=3))
    cmd = ranked(tmp_path / "two", "experts", max_epoch=3, resume=True)
    assert two_ranks(cmd, dies_in_epoch=2) == [1, -signal.SIGKILL]
    heard = (tmp_path / "heard0").read_text()
    assert heard.startswith("ConnectionError: all processes of a training must run to")
    assert "run the same command again: it resumes after the last" in heard
    assert not (tmp_path / "two/system.json").exists()
    assert len(losses(tmp_path / "two")) == 2  # of the first epoch
    assert two_ranks(cmd) == [0, 0]
    one, two = (states(tmp_path / n)["model"] for n in ("one", "two"))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=1e-5, rtol=1e-5)
    assert (tmp_path / "two/system.json").exists()


def test_a_signal_stops_after_the_step_and_a_rerun_is_the_same(
    trained, command, tmp_path, caplog
):
    """As a scheduler stops a job and starts it again: by the same command."""
    steps = itertools.count(1)

    def terminate(*_):
        if next(steps) == 3:  # the first of the second epoch
            os.kill(os.getpid(), signal.SIGTERM)

    hook = register_optimizer_step_pre_hook(terminate)
    with pytest.raises(SystemExit) as caught:
        train.main(command(tmp_path, resume=True))
    hook.remove()
    assert caught.value.code == 143
    assert "stopped by SIGTERM after step 1 of epoch 2; the same command" in caplog.text
    assert not (tmp_path / "system.json").exists()
    train.main(command(tmp_path, resume=True))
    ours, theirs = states(tmp_path), states(trained)
    for name, value in theirs["model"].items():
        assert torch.equal(ours["model"][name], value), name
    assert (tmp_path / "system.json").exists()


def test_half_a_checkpoint_gives_way_to_the_one_before(trained, command, tmp_path):
    """What a process leaves that is killed while it writes."""
    shutil.copytree(trained, tmp_path / "exp", symlinks=True)
    whole = (tmp_path / "exp/checkpoint.pth").read_bytes()
    (tmp_path / "exp/checkpoint.pth").write_bytes(whole[:2000])
    train.main(command(tmp_path / "exp", resume=True))
    ours, theirs = states(tmp_path / "exp"), states(trained)
    for name, value in theirs["model"].items():
        assert torch.equal(ours["model"][name], value), name


@pytest.fixture
def epoch(arguments, build):
    """One epoch of ESPnet's loop over given batches."""

    def epoch(batches, accum_grad):
        model = build("experts")
        args = arguments(
            accum_grad=accum_grad,
            grad_clip=0.1,
            keep_nbest_models=1,
            max_epoch=1,
            log_interval=None,
        )
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        reporter = Reporter()
        reporter.set_epoch(1)
        with reporter.observe("train") as observed:
            ExpertTrainer.train_one_epoch(
                model=model,
                iterator=batches,
                optimizers=[optimizer],
                schedulers=[None],
                scaler=None,
                reporter=observed,
                summary_writer=None,
                options=ExpertTrainer.build_options(args),
                distributed_option=DistributedOption(),
            )
        return model.state_dict()

    return epoch


def test_accumulated_halves_equal_a_whole_batch(epoch, collate):
    utts = ["a1", "a2", "a3", "a4"]
    whole = [(utts, collate(*utts))]
    halves = [(half, collate(*half)) for half in (utts[:2], utts[2:])]
    once, twice, none = epoch(whole, 1), epoch(halves, 2), epoch([], 1)
    for name, value in once.items():
        torch.testing.assert_close(twice[name], value, atol=1e-5, rtol=1e-5)
    assert any(not torch.allclose(once[n], none[n], atol=1e-3) for n in once)


def test_a_batch_that_is_not_finite_changes_nothing(epoch, collate, caplog):
    whole = (["a1", "a2"], collate("a1", "a2"))
    broken = (["a3", "a4"], collate("a3", "a4"))
    broken[1]["speech"][0, :100] = math.nan
    both, alone = epoch([broken, whole], 1), epoch([whole], 1)
    for name, value in alone.items():
        assert torch.equal(both[name], value)
    assert "is skipped; one of its utterances may be broken: a3, a4" in caplog.text


def test_steps_count_whole_accumulations(command, tmp_path):
    """Batches left over at an epoch's end make no step."""
    options = {"batch_bins": 25_000, "accum_grad": 4}
    train.main(command(tmp_path, **options))
    what = json.loads((tmp_path / "system.json").read_text())
    adam = states(tmp_path)["optimizers"][0]["state"]
    assert what["steps"] == max(float(state["step"]) for state in adam.values()) == 2


@pytest.mark.parametrize(
    "model, asked, kept",
    [
        ("lora_expert", 5, 1),
        ("lora_expert", [1, 5], 1),
        ("lora_distill", 2, 1),
        ("lora_expert", 1, 1),
        ("lora_expert", [1], [1]),
        ("whisper_full", 5, 5),
    ],
)
def test_factors_are_not_averaged(arguments, caplog, model, asked, kept):
    args = arguments(model=model, keep_nbest_models=asked)
    with caplog.at_level(logging.WARNING):
        assert ExpertTrainer.build_options(args).keep_nbest_models == kept
    assert ("becomes 1 for LoRA" in caplog.text) == (asked != kept)


def test_best_model_must_exist(tmp_path):
    options = argparse.Namespace(best_model_criterion=[("valid", "acc", "max")])
    with pytest.raises(FileNotFoundError, match="must have a best model of .*acc"):
        ExpertTrainer._best(tmp_path, options)


@pytest.mark.parametrize("kind", ["multi", "distill", "experts", "mole", "full"])
def test_deployed_parameters(build, folder_30s, kind):
    """One LoRA folds away; a MoLE needs one merged pair and the upper experts."""
    model = build(kind)
    per_layer = {
        key: 2 * (layer.in_features + layer.out_features)
        for key, layer in model.backbone.bank.layers.items()
    }
    merged = [v for k, v in per_layer.items() if k.startswith("model.encoder.layers.0")]
    router = sum(p.numel() for p in model.system.parameters()) if kind == "mole" else 0
    extra = {
        "experts": 3 * sum(per_layer.values()),
        "mole": 3 * sum(per_layer.values()) - 2 * sum(merged) + router - 3 * 6,
    }
    whole = base_params(folder_30s) + extra.get(kind, 0)
    assert deployed_parameters(model.backbone, model.system) == whole


def test_tensorboard_has_our_statistics(command, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train.main(command(tmp_path, use_tensorboard=True, max_epoch=1))
    for part in ("train", "valid"):
        events = EventAccumulator(str(tmp_path / "tensorboard" / part)).Reload()
        tags = set(events.Tags()["scalars"])
        assert {"loss", "loss_asr", "acc", *(f"loss_{x}" for x in LANGS)} <= tags
        assert math.isfinite(events.Scalars("loss")[-1].value)


def test_weights_and_biases_has_our_statistics(command, tmp_path, monkeypatch):
    """Without an account: a run that could be uploaded later."""
    wandb = pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    train.main(command(tmp_path, use_wandb=True, max_epoch=1))
    wandb.finish()
    [log] = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    written = log.read_bytes()
    assert all(f"valid_loss_{code}_epoch".encode() in written for code in LANGS)
