"""A tiny corpus, and ESPnet models on the tiny random Whisper."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from espnet_lora_experts.experts.bank import lora_config
from espnet_lora_experts.experts.store import save_expert
from espnet_lora_experts.plugin.task import LoraExpertsTask
from espnet_lora_experts.whisper.backbone import Backbone

LANGS = ["es", "ja", "ru"]
RANK = 2
UTTS = {  # utterance: (language, samples, text)
    "a1": ("ru", 9000, "да нет"),
    "a2": ("es", 5000, "uno dos"),
    "a3": ("ja", 7000, "いち、に"),
    "a4": ("es", 12000, ""),
    "a5": ("ru", 6000, "три"),
    "a6": ("es", 8000, "cinco"),
}
KINDS = {
    "experts": ("lora_expert", {"r": RANK}),
    "multi": ("lora_expert", {"r": RANK, "expert": "multi"}),
    "mole": ("lora_mole", {"merged_layers": 1}),
    "distill": ("lora_distill", {"r": 4, "interpolation_prob": 0.0}),
    "logits_only": (
        "lora_distill",
        {"r": 4, "interpolation_prob": 0.0, "logits_only": True},
    ),
    "full": ("whisper_full", {}),
}


@pytest.fixture(scope="session")
def other_folder(folder_30s, make_whisper, tmp_path_factory):
    """Another Whisper of the same shape."""
    path = tmp_path_factory.mktemp("models") / "whisper-other"
    shutil.copytree(folder_30s, path)
    make_whisper(99, max_source_positions=1500).save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def token_list(prompter, tmp_path_factory):
    """The file of stage 3: the full vocabulary, line n is id n."""
    path = tmp_path_factory.mktemp("tokens") / "token_list"
    path.write_text("\n".join(prompter.token_list()) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """A dump dir: noise in flac files, all but one with text."""
    path = tmp_path_factory.mktemp("dump")
    rng = np.random.RandomState(0)
    tables = {name: [] for name in ("wav.scp", "text", "utt2lang", "utt2num_samples")}
    for utt, (lang, samples, text) in UTTS.items():
        audio = path / f"{utt}.flac"
        soundfile.write(audio, rng.uniform(-0.5, 0.5, samples), 16_000)
        values = (audio, text, lang, samples)
        for lines, value in zip(tables.values(), values, strict=True):
            lines.append(f"{utt} {value}\n")
    for name, lines in tables.items():
        (path / name).write_text("".join(lines), encoding="utf-8")
    return SimpleNamespace(path=path, utts=UTTS)


@pytest.fixture(scope="session")
def experts(folder_30s, tmp_path_factory):
    """A PEFT folder for each language: experts far from zero."""
    path = tmp_path_factory.mktemp("experts")
    backbone = Backbone.from_pretrained(str(folder_30s))
    metadata = {"backbone_sha256": backbone.sha256}
    for seed, lang in enumerate(LANGS):
        backbone.bank.add(lang, lora_config(RANK), seed)
        _shake([p for _, p in backbone.bank.parameters_of(lang)], seed)
        save_expert(backbone.bank, lang, path / lang, str(folder_30s), metadata)
    return {lang: str(path / lang) for lang in LANGS}


@torch.no_grad()
def _shake(parameters, seed):
    generator = torch.Generator().manual_seed(seed)
    for parameter in parameters:
        parameter += 0.1 * torch.randn(parameter.shape, generator=generator)


@pytest.fixture(scope="session")
def shake():
    """Adds noise to parameters: away from zero, where gradients vanish."""
    return _shake


@pytest.fixture(scope="session")
def conf_of(experts):
    """Name and configuration of a kind of model, with experts where it needs some."""

    def conf_of(kind, langs=LANGS, **conf):
        name, defaults = KINDS[kind]
        conf = {"languages": langs, **defaults, **conf}
        if name in ("lora_mole", "lora_distill"):
            conf = {"experts": experts, **conf}
        return name, conf

    return conf_of


@pytest.fixture(scope="session")
def arguments(folder_30s, token_list):
    """Parsed options of the task for a model."""

    def parse(*options, **args):
        parser = LoraExpertsTask.get_parser()
        given = ["--backbone", str(folder_30s), "--token_list", str(token_list)]
        parsed = parser.parse_args([*given, "--output_dir", "unused", *options])
        for name, value in args.items():
            setattr(parsed, name, value)
        return parsed

    return parse


@pytest.fixture(scope="session")
def build(arguments, conf_of):
    """Builds a model of a kind by ESPnet's task; trained tensors are off zero."""

    def build(kind, langs=LANGS, seed=0, more=None, **conf):
        name, conf = conf_of(kind, langs, **conf)
        torch.manual_seed(seed)
        args = arguments(model=name, model_conf=conf, **(more or {}))
        model = LoraExpertsTask.build_model(args)
        if seed is not None:
            _shake([p for p in model.parameters() if p.requires_grad], seed)
        return model.train()

    return build


@pytest.fixture(scope="session")
def collate(arguments, corpus):
    """The batch of some utterances, through ESPnet's dataset and our preprocessor."""
    args = arguments(use_preprocessor=True)
    process = LoraExpertsTask.build_preprocess_fn(args, train=False)
    merge = LoraExpertsTask.build_collate_fn(args, train=False)

    def collate(*utts, **replaced):
        data = []
        for utt in utts:
            lang, _, text = corpus.utts[utt]
            speech, _ = soundfile.read(corpus.path / f"{utt}.flac", dtype="float32")
            fields = {"speech": speech, "text": text, "lang": lang, **replaced}
            data.append((utt, process(utt, fields)))
        return merge(data)[1]

    return collate


@pytest.fixture(scope="session")
def gradients():
    """The gradients of a loss by parameter; zero where there is none."""

    def gradients(model, loss):
        model.zero_grad()
        loss.backward()
        return {
            name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
            for name, p in model.named_parameters()
            if p.requires_grad
        }

    return gradients
