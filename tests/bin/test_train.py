"""The training command: ESPnet's options and ours."""

import runpy

import pytest
import typeguard
import yaml

from espnet_lora_experts.bin import train


@pytest.fixture
def dry_run(folder_30s, prompter, tmp_path):
    """A command line that builds a model and stops before training."""
    tokens = tmp_path / "token_list"
    tokens.write_text("\n".join(prompter.token_list()) + "\n", encoding="utf-8")
    return (
        ["--backbone", str(folder_30s), "--token_list", str(tokens)]
        + ["--output_dir", str(tmp_path / "exp"), "--dry_run", "true"]
        + ["--model_conf", "languages=[es, ru]", "--model_conf", "r=2"]
        + ["--optim", "adamw", "--optim_conf", "lr=0.1"]
    )


def test_dry_run_writes_a_whole_config(dry_run, folder_30s, prompter, tmp_path):
    """Backbone, components and vocabulary: enough to build the model again."""
    train.main(dry_run)
    config = yaml.safe_load((tmp_path / "exp/config.yaml").read_text("utf-8"))
    assert config["model_conf"] == {"languages": ["es", "ru"], "r": 2}
    assert config["encoder_conf"] == {"backbone": str(folder_30s)}
    assert config["token_list"] == prompter.token_list()


def test_parser_has_espnets_options_and_ours():
    args = train.get_parser().parse_args(["--output_dir", "x", "--accum_grad", "3"])
    assert args.accum_grad == 3 and args.backbone is None and args.sampler_conf == {}


def test_only_the_import_of_espnet_goes_unchecked():
    checked = typeguard.typechecked
    with train.unchecked_types():
        assert typeguard.typechecked(print) is print
        assert typeguard.typechecked(collection_check_strategy=1)(print) is print
    assert typeguard.typechecked is checked


@pytest.mark.filterwarnings("ignore:.*found in sys.modules")
def test_bad_input_ends_a_command_with_one_message(dry_run, monkeypatch):
    """Good input in silence, with status 0."""
    monkeypatch.setattr("sys.argv", ["train", *dry_run])
    runpy.run_module(train.__name__, run_name="__main__")
    monkeypatch.setattr("sys.argv", ["train", *dry_run, "--model_conf", "r=0"])
    with pytest.raises(SystemExit, match="^error: expert 'es' cannot .* 0$") as caught:
        runpy.run_module(train.__name__, run_name="__main__")
    assert "Traceback" not in str(caught.value)
