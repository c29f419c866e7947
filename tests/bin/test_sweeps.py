"""Tables of the sweeps that were run."""

import json

from espnet_lora_experts.bin import sweeps


def test_sweeps_that_were_run_are_printed_and_others_named(tmp_path, capsys, caplog):
    scores = {"avg_wer": 30.0, "ci95": [20.0, 40.0]}
    systems = {"multi": {"steps": 5, "aware": scores}}
    results = {"meta": {"utterances": {"dev": 7}}, "systems": systems}
    (tmp_path / "exp/sweeps/alpha").mkdir(parents=True)
    (tmp_path / "exp/sweeps/alpha/results.json").write_text(json.dumps(results))
    for name in ("alpha", "depth"):
        (tmp_path / f"{name}.txt").write_text(f"# The {name}.\nkd a --model_conf r=1\n")
    files = [str(tmp_path / f"{name}.txt") for name in ("alpha", "depth")]
    sweeps.main([*files, "--expdir", str(tmp_path / "exp")])
    out = capsys.readouterr().out
    assert out.startswith(f"`{files[0]}`: The alpha (7 utterances):")
    assert "|multi|the default|30.0 [" in out
    assert "The depth" not in out and out.count("p: paired bootstrap") == 1
    assert "depth.txt: not run" in caplog.text
