"""ESPnet's own mini_an4 with its unedited asr.sh, from data to a packed model."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

ROOT = Path(__file__).resolve().parents[2]
RUN = ROOT / "egs2/mini_an4/asr1/run.sh"
RECIPE = "egs2/mini_an4/asr1"
pytestmark = pytest.mark.integration


def environment(**more):
    """With this Python and this checkout."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    found = {"python": sys.executable, "PYTHONPATH": ":".join(filter(None, paths))}
    return {**os.environ, **found, **more}


def run(*command, **more):
    return subprocess.run(
        [str(part) for part in command],
        env=environment(**more),
        text=True,
        capture_output=True,
    )


@pytest.fixture(scope="module")
def finished(tree):
    """The recipe, all stages; what it printed."""
    if shutil.which("sclite", path=f"{os.environ['PATH']}:/usr/lib/sctk/bin") is None:
        pytest.skip("sclite is not installed (Debian's sctk)")
    assert "is there already" in run(ROOT / "local/espnet.sh", tree).stdout
    before = digest(tree)
    done = run(RUN, "--espnet_root", tree)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert digest(tree) == before
    return done.stdout


def digest(tree):
    return hashlib.sha256((tree / RECIPE / "asr.sh").read_bytes()).hexdigest()


def test_sclites_table_ends_the_run(finished):
    table = finished[finished.rindex("## exp/asr_lora_expert\n") :]
    rows = re.findall(r"^\|([^|]+)\|(\d+)\|(\d+)\|", table, re.M)
    assert {"test", "test_seg"} <= {name.rpartition("/")[2] for name, *_ in rows}
    assert all(int(words) > 0 for _, _, words in rows)


def test_it_is_espnets_search_with_a_language_model_over_our_decoder(tree, finished):
    [log] = tree.glob(f"{RECIPE}/exp/asr_lora_expert/*/test/logdir/asr_inference.1.log")
    said = log.read_text("utf-8")
    assert "BatchBeamSearch implementation is selected" in said
    assert "LoraExpertDecoder" in said and "SequentialRNNLM" in said


def test_the_packed_model_gives_the_recipes_transcripts(tree, finished, monkeypatch):
    from espnet_lora_experts.plugin.inference import Speech2Text

    [packed] = tree.glob(f"{RECIPE}/exp/asr_lora_expert/*.zip")
    options = {"beam_size": 5, "lm_weight": 0.02, "maxlenratio": 0.5}
    speech2text = Speech2Text.from_pretrained(packed, **options)
    [decoded] = tree.glob(f"{RECIPE}/exp/asr_lora_expert/*/test/text")
    texts = dict(line.split(" ", 1) for line in decoded.read_text().splitlines())
    scp = tree / RECIPE / "dump/raw/test/wav.scp"
    for line in scp.read_text().splitlines():
        utt, path = line.split()
        speech, _ = soundfile.read(tree / RECIPE / path, dtype="float32")
        assert speech2text(speech)[0][0] == texts[utt].strip()


def test_the_trained_folder_is_a_system_of_ours(tree, finished):
    from espnet_lora_experts import Speech2Text

    speech2text = Speech2Text.from_pretrained(tree / RECIPE / "exp/asr_lora_expert")
    [path, *_] = sorted(tree.glob(f"{RECIPE}/dump/raw/test/data/*/*.flac"))
    assert speech2text(str(path), "en").text
