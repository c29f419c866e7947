"""A corpus' recipe in quick mode, end to end; the others up to formatted data."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import soundfile

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
MINI = ROOT / "egs2/mini_multilingual/asr1"
DOWNLOADS = MINI / "downloads"
MADE = {"exp", "data", "dump", "downloads"}
OPTIONS = {
    "commonvoice": ["--langs", "ca eo", "--commonvoice", "commonvoice"],
    "fleurs": ["--langs", "ca hi sw", "--fleurs", "fleurs"],
    "mls": ["--langs", "pl pt", "--mls", "mls"],
    "paper8": ["--aishell", "paper8", "--librispeech", "paper8"]
    + ["--commonvoice", "paper8"],
}
LANGS = {"paper8": "zh en ko ja id ru vi yue"}


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    """Miniatures of real speech, by the command of the READMEs."""
    folder = tmp_path_factory.mktemp("corpora")
    command = [sys.executable, "-m", "tests.egs2.miniatures", folder]
    command += ["--download_dir", DOWNLOADS]
    subprocess.run(list(map(str, command)), cwd=ROOT, check=True)
    return folder


@pytest.fixture
def run(corpora, tmp_path):
    """Runs a recipe from where the corpora are; gives the recipe's folder."""

    def run(name, *options):
        home = tmp_path / name
        home.mkdir()
        for path in (ROOT / f"egs2/{name}/asr1").iterdir():
            if path.name not in MADE:
                (home / path.name).symlink_to(path)
        environment = {k: v for k, v in os.environ.items() if k != "ESPNET_ROOT"}
        command = [str(home / "run.sh"), "--quick", "true", *OPTIONS[name], *options]
        done = subprocess.run(
            command, cwd=corpora, env=environment, text=True, capture_output=True
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return home

    return run


def test_common_voice_from_clips_to_results(run):
    few = ["--cross_experts", "false", "--skip_stages", "11"]
    home = run("commonvoice", *few, "--local_data_opts", "--max_train 12 --max_test 2")
    results = json.loads((home / "exp/results.json").read_text())["systems"]
    assert set(results) == {"vanilla", "mono", "two_pass", "multi", "mole", "kd"}
    assert set(results["kd"]["agnostic"]["wer"]) == {"ca", "eo"}


@pytest.mark.parametrize("name", ["fleurs", "mls", "paper8"])
def test_other_corpora_become_formatted_data(run, name):
    home = run(name, "--stop_stage", "2")
    rows = (home / "dump/raw/test/utt2lang").read_text().splitlines()
    langs = LANGS.get(name) or OPTIONS[name][1]
    assert {row.split()[1] for row in rows} == set(langs.split())
    for row in (home / "dump/raw/train/wav.scp").read_text().splitlines()[::20]:
        assert soundfile.info(home / row.split()[1]).samplerate == 16_000


def test_fish_fillets_come_from_debians_own_packages(tmp_path):
    command = [MINI / "local/data.sh", "--langs", "cs nl", "--max_train", "5"]
    command += ["--data_dir", tmp_path, "--download_dir", DOWNLOADS]
    subprocess.run(list(map(str, command)), cwd=MINI, check=True)
    langs = (tmp_path / "train/utt2lang").read_text().split()[1::2]
    assert Counter(langs) == {"cs": 5, "nl": 5}
    for row in (tmp_path / "train/wav.scp").read_text().splitlines():
        assert soundfile.info(MINI / row.split()[1]).duration > 0.3
