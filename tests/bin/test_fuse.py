"""Merging without training: the result is a system that computes the weighted mean."""

import pytest
import torch

from espnet_lora_experts.bin import fuse
from espnet_lora_experts.experts.gate import everywhere, soft
from espnet_lora_experts.whisper.folder import load_system, save_system
from espnet_lora_experts.whisper.systems import Experts, Single, System, encode


@pytest.fixture
def mono(trio, tmp_path):
    save_system(tmp_path / "mono", trio, Experts(["es", "ru", "ja"]))
    return tmp_path / "mono"


@torch.no_grad()
def hidden(backbone, gate, mel):
    """Encoder output under one gate everywhere."""

    class Fixed(System):
        def encoder_gate(self, layer, route):
            return gate

    return encode(backbone, Fixed(["es"]), *mel).hidden_BPD


def run(mono, *options):
    """The merged system, loaded from its folder, and its parameters' count."""
    output = mono.parent / "merged"
    fuse.main(["--input", str(mono), "--output", str(output), *options])
    backbone, system, what = load_system(output)
    assert isinstance(system, Single)
    return backbone, system, what


def merged_hidden(mono, mel, *options):
    backbone, system, _ = run(mono, *options)
    with torch.no_grad():
        return encode(backbone, system, *mel).hidden_BPD


@pytest.mark.parametrize("kind", [["cat"], ["svd", "--r", "9"]])
def test_exact_merges_are_the_soft_gate(trio, mono, mel, kind):
    """Rank 9 holds three experts of rank 3."""
    weights = {"es": 0.5, "ru": 0.2, "ja": 0.3}
    asked = " ".join(f"{name}={weight}" for name, weight in weights.items())
    got = merged_hidden(mono, mel, "--combination_type", *kind, "--weights", asked)
    gate = soft(list(weights), torch.tensor([list(weights.values())] * 4))
    torch.testing.assert_close(got, hidden(trio, gate, mel), atol=1e-4, rtol=1e-4)


@pytest.mark.filterwarnings("ignore:The density")
@pytest.mark.parametrize("kind", ["linear", "cat", "svd", "ties", "ties_svd"])
def test_one_expert_alone_is_itself(trio, mono, mel, kind):
    options = ["--weights", "ru=1", "--density", "1", "--r", "3"]
    got = merged_hidden(mono, mel, "--combination_type", kind, *options)
    expected = hidden(trio, everywhere("ru"), mel)
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


def test_all_experts_weigh_the_same_by_default(mono, mel):
    even = " ".join(f"{name}={1 / 3}" for name in ("es", "ru", "ja"))
    torch.testing.assert_close(
        merged_hidden(mono, mel, "--combination_type", "cat"),
        merged_hidden(mono, mel, "--combination_type", "cat", "--weights", even),
    )


def test_a_merge_folds_away_and_costs_no_step(mono, make_whisper):
    _, _, what = run(mono, "--combination_type", "svd", "--r", "2")
    assert (what["steps"], what["trained_params"]) == (0, 0)
    assert what["deployed_params"] == make_whisper().num_parameters()


@pytest.mark.parametrize(
    "options, message",
    [
        (["--weights", "fr=1"], r"--weights must be of \['es', 'ru', 'ja'\]"),
        (["--weights", "es=much"], "--weights must be numbers, but got 'es=much'"),
        (["--combination_type", "sum"], "combination_type must be one of .*'sum'"),
    ],
)
def test_bad_options_are_named_and_nothing_is_written(mono, options, message):
    with pytest.raises(ValueError, match=message):
        run(mono, *options)
    assert not (mono.parent / "merged").exists()
