"""Every YAML of the repository parses with its command and builds its model."""

from pathlib import Path

import pytest
import yaml

from espnet_lora_experts.bin import cli, decode
from espnet_lora_experts.experts.store import save_expert
from espnet_lora_experts.plugin.task import LoraExpertsTask
from espnet_lora_experts.report.sweeps import read_sweep
from espnet_lora_experts.whisper.backbone import Backbone

ROOT = Path(__file__).resolve().parents[1]
PATTERNS = ("conf/**/*.yaml", "egs2/*/asr1/conf/**/*.yaml")
YAMLS = sorted({path.resolve() for p in PATTERNS for path in ROOT.glob(p)})
TRAIN = [path for path in YAMLS if path.name.startswith("train")]
SWEEPS = sorted(ROOT.glob("conf/sweeps/*.txt"))
SYSTEMS = {"multi": "train_multi", "mole": "train_mole", "kd": "train_distill"}
SYSTEMS["mono"] = "train_expert"
KNOWN = {*SYSTEMS, "two_pass"}
DECODE = [path for path in YAMLS if path.name.startswith("decode")]
LANGS = ["es", "ru"]


def names(paths):
    return [str(path.relative_to(ROOT)) for path in paths]


def test_every_yaml_is_one_or_the_other():
    assert len(TRAIN) >= 5 and sorted(TRAIN + DECODE) == YAMLS


@pytest.fixture(scope="module")
def options(folder_30s, prompter, add_random, tmp_path_factory):
    """What a recipe adds to a YAML: backbone, vocabulary, languages, experts."""
    path = tmp_path_factory.mktemp("conf")
    tokens = path / "token_list"
    tokens.write_text("\n".join(prompter.token_list()) + "\n", encoding="utf-8")
    bank = Backbone.from_pretrained(str(folder_30s)).bank
    add_random(bank, LANGS)
    for lang in LANGS:
        save_expert(bank, lang, path / lang)
    cmd = ["--backbone", str(folder_30s), "--token_list", str(tokens)]
    cmd += ["--output_dir", str(path / "exp"), "--model_conf", "languages=[es, ru]"]
    return cmd, {lang: str(path / lang) for lang in LANGS}


@pytest.mark.parametrize("path", TRAIN, ids=names(TRAIN))
def test_training_yaml_builds_model_and_optimizer(path, options):
    cmd, experts = options
    args = LoraExpertsTask.get_parser().parse_args(["--config", str(path), *cmd])
    assert args.iterator_type == "task" and args.seed == 0
    if args.model in ("lora_mole", "lora_distill"):
        args.model_conf["experts"] = experts
    model = LoraExpertsTask.build_model(args)
    assert model.trained_params > 0
    [optimizer] = LoraExpertsTask.build_optimizers(args, model)
    assert optimizer.defaults["lr"] == args.optim_conf["lr"] > 0
    options = LoraExpertsTask.trainer.build_options(args)
    if args.model != "whisper_full":
        assert options.keep_nbest_models == args.keep_nbest_models == 1


@pytest.mark.parametrize("path", TRAIN, ids=names(TRAIN))
def test_every_key_says_its_effect(path):
    """In a comment on its line; blocks and the plainest keys need none."""
    plain = ("model:", "optim:", "scheduler:", "max_epoch:", "seed:")
    lines = path.read_text("utf-8").splitlines()
    values = [x for x in lines if ":" in x and x.split(":", 1)[1].strip()]
    bare = [x for x in values if "#" not in x and not x.startswith(plain)]
    assert bare == []


@pytest.mark.parametrize("path", SWEEPS, ids=names(SWEEPS))
def test_every_line_of_a_sweep_builds_another_model(path, options):
    """Of a tag of its own, with other options than the YAML or other experts."""
    cmd, experts = options
    text = path.read_text("utf-8")
    lines = [line.partition("#")[0].split() for line in text.splitlines()]
    rows = [row for row in lines if len(row) > 1]
    assert len({(system, tag) for system, tag, *_ in rows}) == len(rows)
    assert all(row[0].partition("@")[0] in KNOWN for row in lines if len(row) == 1)
    for system, tag, *changes in rows:
        base = ["--config", str(ROOT / f"conf/{SYSTEMS[system]}.yaml"), *cmd]
        parse = LoraExpertsTask.get_parser().parse_args
        args = parse([*base, *changes])
        own_experts = ["mono", tag] in [row[:2] for row in rows]
        assert vars(args) != vars(parse(base)) if changes else own_experts
        if system in ("mole", "kd"):
            args.model_conf["experts"] = experts
        model = LoraExpertsTask.build_model(args)
        assert model.trained_params > 0
        assert LoraExpertsTask.build_optimizers(args, model)


@pytest.mark.parametrize("path", SWEEPS, ids=names(SWEEPS))
def test_every_sweep_says_what_it_varies(path):
    sweep = read_sweep(path.read_text("utf-8"))
    assert len(sweep.title) > 20 and sweep.what and all(sweep.what.values())


@pytest.mark.parametrize("path", DECODE, ids=names(DECODE))
def test_decoding_yaml_parses(path):
    cmd = ["--systems", "multi", "--langs", "es", "--config", str(path)]
    written = yaml.safe_load(path.read_text("utf-8"))
    args = vars(cli.parse(decode.get_parser(), cmd))
    assert written and {key: args[key] for key in written} == written
