"""A tiny random Whisper with tokenizer files, experts in it, a batch: all offline."""

import re
import shutil
from pathlib import Path

import pytest
import torch
from transformers import (
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizerFast,
)
from transformers.convert_slow_tokenizer import bytes_to_unicode

from espnet_lora_experts.experts.bank import lora_config
from espnet_lora_experts.whisper.backbone import Backbone
from espnet_lora_experts.whisper.prompt import Prompter
from espnet_lora_experts.whisper.systems import MoLE, encode

torch.set_num_threads(1)  # on tensors this small, threads only wait for each other

ROOT = Path(__file__).parents[1]
LETTERS = list(bytes_to_unicode().values())
EOT = "<|endoftext|>"
SPECIALS = [
    "<|startoftranscript|>",
    *[f"<|{code}|>" for code in ("en", "zh", "de", "es", "ru", "ko", "ja")],
    *["<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>"],
    *["<|nospeech|>", "<|notimestamps|>"],
]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Files by processes; those that need the recipe's quick run share one."""
    from xdist.scheduler import LoadFileScheduling

    asked = re.compile(r"^def \w+\(.*\brecipe\b", re.MULTILINE)
    files = (ROOT / "tests/integration").glob("test_*.py")
    users = {str(x.relative_to(ROOT)) for x in files if asked.search(x.read_text())}

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid):
            file = super()._split_scope(nodeid)
            return "recipe" if file in users else file

    return Scheduling(config, log)


def tiny_config(**changes):
    """As Whisper-tiny, but narrow and with bytes for a vocabulary."""
    eot = len(LETTERS)
    own = WhisperConfig(
        vocab_size=eot + 1 + len(SPECIALS),
        d_model=16,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=24,
        decoder_ffn_dim=24,
        max_source_positions=100,
        max_target_positions=32,
        pad_token_id=eot,
        bos_token_id=eot,
        eos_token_id=eot,
        decoder_start_token_id=eot + 1,
        suppress_tokens=None,
        begin_suppress_tokens=None,
        init_std=0.2,
    )
    return WhisperConfig.from_dict(own.to_dict() | changes)


def random_whisper(config, seed=1):
    """transformers' Whisper, random but the same for the same seed.

    Its transcripts vary by position and end, of some utterances after a few tokens.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        whisper = WhisperForConditionalGeneration(config).eval()
        for name, parameter in whisper.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(parameter, std=0.2)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        whisper.proj_out.weight[config.eos_token_id].normal_(
            std=0.5, generator=generator
        )
        whisper.model.decoder.embed_positions.weight.normal_(
            std=0.6, generator=generator
        )
    return whisper


def save_processor(folder):
    """Writes the tokenizer and the feature extractor."""
    WhisperFeatureExtractor().save_pretrained(folder)
    vocab = {letter: i for i, letter in enumerate([*LETTERS, EOT])}
    tokenizer = WhisperTokenizerFast(vocab=vocab, merges=[])
    tokenizer.add_special_tokens({"additional_special_tokens": SPECIALS})
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="session")
def config():
    """See :func:`tiny_config`."""
    return tiny_config()


@pytest.fixture(scope="session")
def make_whisper():
    """Builds a Whisper, see :func:`random_whisper`."""
    return lambda seed=1, **changes: random_whisper(tiny_config(**changes), seed)


@pytest.fixture(scope="session")
def whisper_folder(make_whisper, tmp_path_factory):
    """A complete folder in Hugging Face's layout."""
    folder = tmp_path_factory.mktemp("models") / "whisper-random"
    make_whisper().save_pretrained(folder)
    save_processor(folder)
    return folder


@pytest.fixture(scope="session")
def folder_30s(whisper_folder, make_whisper, tmp_path_factory):
    """The same with positions for 30 s, which padding needs."""
    folder = tmp_path_factory.mktemp("models") / "whisper-30s"
    shutil.copytree(whisper_folder, folder)
    make_whisper(max_source_positions=1500).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def prompter(whisper_folder):
    return Prompter(whisper_folder)


@pytest.fixture
def backbone(make_whisper, whisper_folder):
    """A new one for every test, since experts are put into it."""
    return Backbone(make_whisper(), name=str(whisper_folder))


@pytest.fixture(scope="session")
def add_random():
    """Adds experts that change something: B is random too."""

    def add(bank, names, r=3, scale=0.3, **kwargs):
        for seed, name in enumerate(names):
            bank.add(name, lora_config(r, **kwargs), seed)
            generator = torch.Generator().manual_seed(100 + seed)
            for key, parameter in bank.parameters_of(name):
                if "lora_B" in key:
                    parameter.data.normal_(0, scale, generator=generator)

    return add


@pytest.fixture
def trio(backbone, add_random):
    """A backbone with experts of es, ru and ja."""
    add_random(backbone.bank, ["es", "ru", "ja"])
    return backbone


@pytest.fixture(scope="session")
def mel():
    """Features and lengths of four utterances, noise behind each one's end."""
    generator = torch.Generator().manual_seed(7)
    frames_B = torch.tensor([40, 64, 22, 51])
    return torch.randn(4, 64, 80, generator=generator), frames_B


@pytest.fixture(scope="session")
def langs():
    """Languages of :func:`mel`: mixed and not sorted."""
    return ["ru", "es", "ru", "ja"]


@pytest.fixture
def make_mole(trio, mel):
    """Builds a random MoLE of the trio whose router tells the rows of mel apart."""

    def make(merged_layers=1, combination="factor", pooling="mean"):
        languages = ["es", "ru", "ja"]
        mole = MoLE(trio, languages, merged_layers, combination, pooling)
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(5)
            for parameter in mole.parameters():
                torch.nn.init.normal_(parameter)
            encode(trio, mole.train(), *mel)  # the router's statistics
            logits_BN = encode(trio, mole.eval(), *mel).lid_logits_BN
            last = mole.router.mlp[-1]
            last.bias -= logits_BN.mean(dim=0)
            for parameter in last.parameters():
                parameter /= logits_BN.std()
        return mole

    return make
