"""The training command: ESPnet's options and ours."""

import yaml

from espnet_lora_experts.bin import train


def test_dry_run_writes_a_whole_config(folder_30s, prompter, tmp_path):
    """Backbone, components and vocabulary: enough to build the model again."""
    tokens = tmp_path / "token_list"
    tokens.write_text("\n".join(prompter.token_list()) + "\n", encoding="utf-8")
    train.main(
        ["--backbone", str(folder_30s), "--token_list", str(tokens)]
        + ["--output_dir", str(tmp_path / "exp"), "--dry_run", "true"]
        + ["--model_conf", "languages=[es, ru]", "--model_conf", "r=2"]
        + ["--optim", "adamw", "--optim_conf", "lr=0.1"]
    )
    config = yaml.safe_load((tmp_path / "exp/config.yaml").read_text("utf-8"))
    assert config["model_conf"] == {"languages": ["es", "ru"], "r": 2}
    assert config["encoder_conf"] == {"backbone": str(folder_30s)}
    assert config["token_list"] == prompter.token_list()


def test_parser_has_espnets_options_and_ours():
    args = train.get_parser().parse_args(["--output_dir", "x", "--accum_grad", "3"])
    assert args.accum_grad == 3 and args.backbone is None and args.sampler_conf == {}
