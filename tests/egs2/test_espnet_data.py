"""ESPnet's own data preparation: its folder, its variables, what its data become."""

from collections import Counter

import pytest

SIZES = {"train": 4, "dev": 2, "test": 2}
SCRIPT = r"""
. ./path.sh || exit 1
. ./cmd.sh || exit 1
. ./db.sh || exit 1
lang=$2
local/download_commonvoice.sh
for part in validated dev test; do
    name=${part/validated/train}_${lang}
    mkdir -p data/"${name}"
    tail -n +2 "${COMMONVOICE}/cv-corpus-5.1-2020-06-22/${lang}/${part}.tsv" |
        while IFS=$'\t' read -r speaker path text _; do
            echo "${speaker}-${path} ${text^^}" >>"data/${name}/text"
            echo "${speaker}-${path} ${speaker}" >>"data/${name}/utt2spk"
            echo "${speaker}-${path} cat /${path} |" >>"data/${name}/wav.scp"
        done
done
"""


@pytest.fixture
def tree(tmp_path):
    """ESPnet's tree, as much as its script of Common Voice needs."""
    root = tmp_path / "espnet"
    for name in ("utils", "scripts", "pyscripts", "steps"):
        (root / "egs2/TEMPLATE/asr1" / name).mkdir(parents=True)
    local = root / "egs2/commonvoice/asr1/local"
    local.mkdir(parents=True)
    (local / "data.sh").write_text(SCRIPT)
    (local / "download_commonvoice.sh").write_text("#!/bin/sh\n")
    (local / "download_commonvoice.sh").chmod(0o755)
    return root


@pytest.fixture
def prepared(local, miniatures, tree, tmp_path, monkeypatch):
    """Runs stage 1 of Common Voice in a folder of its own."""
    miniatures.commonvoice(tmp_path / "cv", miniatures.noise, ["ca", "eo"], SIZES)
    monkeypatch.chdir(tmp_path)
    commonvoice = local("commonvoice", "commonvoice")
    monkeypatch.setattr(commonvoice.espnet_data.shutil, "which", lambda tool: tool)

    def run(*options):
        words = ["--langs", "ca eo", "--commonvoice", "cv", *options]
        commonvoice.main([*words, "--data_dir", "data"])
        names = ("text", "utt2lang", "utt2spk", "wav.scp")
        return {
            name: dict(
                line.split(" ", 1)
                for line in (tmp_path / "data/train" / name)
                .read_text("utf-8")
                .splitlines()
            )
            for name in names
        }

    return run


def test_its_script_runs_on_a_newer_release_with_the_official_splits(prepared, tree):
    ours, theirs = (
        prepared("--espnet_root", "none"),
        prepared("--espnet_root", str(tree)),
    )
    assert Counter(theirs["utt2lang"].values()) == {"ca": 4, "eo": 4}
    upper = sorted(text.upper() for text in ours["text"].values())
    assert sorted(theirs["text"].values()) == upper
    assert all(audio.startswith("cat /") for audio in theirs["wav.scp"].values())
    for utt, lang in theirs["utt2lang"].items():
        assert utt.startswith(theirs["utt2spk"][utt]) and utt.startswith(f"{lang}_")


def test_the_variable_names_the_tree_and_nothing_of_it_is_changed(
    prepared, tree, monkeypatch
):
    before = {path: path.stat().st_mtime_ns for path in tree.rglob("*")}
    monkeypatch.setenv("ESPNET_ROOT", str(tree))
    assert any("|" in audio for audio in prepared()["wav.scp"].values())
    assert {path: path.stat().st_mtime_ns for path in tree.rglob("*")} == before


def test_a_failing_script_shows_its_end(prepared, tree):
    (tree / "egs2/commonvoice/asr1/local/data.sh").write_text("echo no >&2; exit 3\n")
    with pytest.raises(ValueError, match="ended with 3, see .*data.log; its end:\nno"):
        prepared("--espnet_root", str(tree))


def test_a_missing_program_or_tree_is_named_with_the_way_out(
    prepared, tree, local, monkeypatch
):
    with pytest.raises(ValueError, match="must be ESPnet's source tree with egs2"):
        prepared("--espnet_root", "nowhere")
    monkeypatch.setattr(
        local("commonvoice", "espnet_data").shutil, "which", lambda tool: None
    )
    with pytest.raises(
        ValueError, match="must have perl, ffmpeg, .*--espnet_root none"
    ):
        prepared("--espnet_root", str(tree))


def test_download_scripts_are_replaced_by_one_that_does_nothing(local, tree, tmp_path):
    espnet_data = local("commonvoice", "espnet_data")
    script = espnet_data.Script(
        "commonvoice", "COMMONVOICE", (), ("download_commonvoice.sh",)
    )
    espnet_data.make_recipe(tree, script, tmp_path, tmp_path / "made")
    made = tmp_path / "made/local"
    assert (made / "data.sh").is_symlink()
    assert (made / "download_commonvoice.sh").read_text() == "#!/bin/sh\nexit 0\n"
    assert f"COMMONVOICE='{tmp_path}'" in (tmp_path / "made/db.sh").read_text()
