"""The wheel, installed far from any checkout: commands, recipes, real speech."""

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
DOWNLOADS = ROOT / "egs2/mini_multilingual/asr1/downloads"
BACKBONE = "openai/whisper-tiny"


def run(*words, cwd, **options):
    """Runs a command in an environment that knows no checkout and no venv."""
    hidden = ("PYTHONPATH", "VIRTUAL_ENV", "python")
    environment = {k: v for k, v in os.environ.items() if k not in hidden}
    words = list(map(str, words))
    done = subprocess.run(
        words, cwd=cwd, env=environment, text=True, capture_output=True, **options
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    """The source distribution; what is built on the way stays out of the checkout."""
    made = tmp_path_factory.mktemp("sdist")
    commands = ["egg_info", "--egg-base", made, "sdist", "--dist-dir", made]
    run(sys.executable, "setup.py", "-q", *commands, cwd=ROOT)
    [path] = made.glob("*.tar.gz")
    return path


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory):
    """The wheel, built of the source distribution."""
    made = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "-q", "wheel", "--no-deps"]
    run(*pip, "--no-build-isolation", "-w", made, sdist, cwd=made)
    [path] = made.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def script(wheel, tmp_path_factory):
    """The console script of a new environment; libraries are lent by this one."""
    venv = tmp_path_factory.mktemp("installed") / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", venv, cwd=venv.parent)
    [packages] = venv.glob("lib/python*/site-packages")
    (packages / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "-q", "--python", venv / "bin/python"]
    run(*pip, "install", "--no-deps", wheel, cwd=venv.parent)
    return venv / "bin/espnet-lora-experts"


@pytest.fixture(scope="module")
def copied(script, tmp_path_factory):
    """A copied recipe with the data of its first stage."""
    folder = tmp_path_factory.mktemp("work") / "mine"
    said = run(script, "recipe", folder, cwd=folder.parent)
    assert f"cd {folder} && ./run.sh" in said
    few = "--max_train 2 --max_dev 2 --max_test 2"
    stages = ["--stage", 1, "--stop_stage", 3, "--langs", "es ru"]
    data = ["--local_data_opts", few, "--download_dir", DOWNLOADS]
    run("./run.sh", *stages, *data, cwd=folder)
    return folder


def test_the_source_distribution_has_tests_and_papers(sdist):
    with tarfile.open(sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive}
    wanted = {"LICENSE", "README.md", "CHANGELOG.md", "CITATION.cff", "SECURITY.md"}
    wanted |= {"pyproject.toml", "tests/test_package.py", "local/setup.sh"}
    wanted |= {"conf/train_mole.yaml"}
    assert wanted <= names
    assert not [name for name in names if "/exp/" in name or "/downloads/" in name]


def test_the_wheel_has_recipes_papers_and_types(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    recipe = "espnet_lora_experts/share/egs2/mini_multilingual/asr1"
    wanted = {f"{recipe}/{x}" for x in ("run.sh", "path.sh", "conf/train_mole.yaml")}
    wanted |= {
        f"espnet_lora_experts/share/{x}" for x in ("CHANGELOG.md", "CITATION.cff")
    }
    assert wanted | {"espnet_lora_experts/py.typed"} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("tests", "egs2", "conf"))]


def test_the_installed_package_is_not_the_checkout(script):
    program = "import espnet_lora_experts as e; print(e.__file__)"
    python = script.with_name("python")
    where = Path(run(python, "-c", program, cwd="/").strip())
    assert where.is_relative_to(script.parents[1])


def test_help_is_there_for_every_command(script):
    assert "transcribe" in run(script, "--help", cwd="/")
    assert "--combination_type" in run(script, "fuse", "--help", cwd="/")
    assert "--sampler_conf" in run(script, "train-mole", "--help", cwd="/")


def test_the_copied_recipe_ran_with_the_installed_package(copied, script):
    assert "--stop_stage" in run("./run.sh", "--help", cwd=copied)
    assert (
        str(script.with_name("python")) in (copied / "activate_python.sh").read_text()
    )
    assert len((copied / "dump/raw/test/wav.scp").read_text().splitlines()) == 4
    assert (copied / "exp/vanilla/system.json").is_file()


def test_inspect_and_transcribe_real_speech(copied, script, tmp_path):
    facts = json.loads(
        run(script, "inspect", copied / "exp/vanilla", "--json", cwd="/")
    )
    assert (facts["type"], facts["backbone"]) == ("vanilla", BACKBONE)
    rows = (copied / "dump/raw/test/wav.scp").read_text().splitlines()
    clips = [str(copied / row.split()[1]) for row in rows]
    transcribe = [script, "transcribe", "--model", copied / "exp/vanilla"]
    lines = run(*transcribe, cwd=tmp_path, input="\n".join(clips)).splitlines()
    assert [line.split("\t")[0] for line in lines] == clips
    assert all(len(line.split("\t")[1]) > 3 for line in lines)
    run(*transcribe, *clips, "--lang", "es", "--format", "srt,json", cwd=tmp_path)
    assert len([*tmp_path.glob("*.srt")]) == len([*tmp_path.glob("*.json")]) == 4
