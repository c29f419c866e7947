"""Runs the data preparation of ESPnet's own recipes, unedited, and reads its result.

Its scripts want a recipe's folder around them. One is made of links to ESPnet's tree,
with a db.sh that says where the corpus is, and with a script that does nothing in the
place of those that download: data are fetched by us, in pieces and checked.
"""

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_dir import Utterance

from espnet_lora_experts.report.kaldi import read_table

logger = logging.getLogger(__name__)
HERE = "data/espnet"
"""Where the recipes' folders are made."""
PATH_SH = """
export PATH=$PWD/utils:$PATH LC_ALL=C PYTHONIOENCODING=UTF-8
# Debian's list has C.utf8, utils/validate_data_dir.sh looks for C.UTF-8.
locale() { command locale "$@" | sed 's/^C.utf8$/C.UTF-8/'; }
export -f locale
"""


@dataclass(frozen=True)
class Script:
    """How one recipe's local/data.sh is called.

    Attributes:
        recipe: Folder in egs2.
        variable: Of db.sh, the corpus' folder.
        tools: Programs that it wants on PATH.
        replaced: Scripts of local/ that only download.
    """

    recipe: str
    variable: str
    tools: tuple[str, ...] = ("perl",)
    replaced: tuple[str, ...] = ("download_and_untar.sh",)


def root_of(given: str) -> Path | None:
    """ESPnet's tree, None where none is wanted.

    Raises:
        ValueError: There are no recipes.
    """
    if given in ("", "none"):
        return None
    root = Path(given).absolute()
    if not (root / "egs2/TEMPLATE/asr1").is_dir():
        raise ValueError(
            f"--espnet_root must be ESPnet's source tree with egs2, but got {given};"
            " local/espnet.sh of this repository fetches one, none: our own reader"
        )
    return root


def run(root: Path, script: Script, corpus: Path, options: Sequence[str]) -> Path:
    """Run a recipe's local/data.sh; gives the folder that has its data dirs.

    Raises:
        ValueError: It or a program is missing, or it fails.
    """
    missing = [tool for tool in script.tools if not shutil.which(tool)]
    if missing:
        raise ValueError(
            f"ESPnet's {script.recipe} must have {', '.join(missing)}, but they are not"
            f" installed (as root: apt-get install {' '.join(missing)}); --espnet_root"
            " none takes our own reader, which needs none"
        )
    folder = Path(HERE, "_".join([script.recipe, *options]).replace("--", ""))
    make_recipe(root, script, corpus, folder)
    logger.info("%s: ESPnet's local/data.sh %s", folder, " ".join(options))
    path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"
    tree = f"{root}:{os.environ.get('PYTHONPATH', '')}"
    with (folder / "data.log").open("w") as log:
        code = subprocess.run(
            ["bash", "local/data.sh", *options],
            cwd=folder,
            env={**os.environ, "PATH": path, "PYTHONPATH": tree},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        ).returncode
    if code:
        said = (folder / "data.log").read_text(errors="replace").splitlines()[-8:]
        raise ValueError(
            f"{script.recipe}'s local/data.sh must succeed, but ended with {code}, see"
            f" {folder / 'data.log'}; its end:\n" + "\n".join(said)
        )
    return folder / "data"


def make_recipe(root: Path, script: Script, corpus: Path, folder: Path) -> None:
    """Make the folder in which a recipe's scripts run, anew."""
    source = root / "egs2" / script.recipe / "asr1/local"
    if not (source / "data.sh").is_file():
        raise ValueError(f"{root} must have {source}/data.sh, but has not")
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "local").mkdir(parents=True)
    for path in source.iterdir():
        if path.name not in script.replaced:
            (folder / "local" / path.name).symlink_to(path)
    for name in script.replaced:
        (folder / "local" / name).write_text("#!/bin/sh\nexit 0\n")
        (folder / "local" / name).chmod(0o755)
    for name in ("utils", "scripts", "pyscripts", "steps"):
        (folder / name).symlink_to(root / "egs2/TEMPLATE/asr1" / name)
    (folder / "db.sh").write_text(f"{script.variable}='{corpus.absolute()}'\n")
    (folder / "path.sh").write_text(PATH_SH)
    (folder / "cmd.sh").write_text("train_cmd=run.pl\n")


def rows(folder: Path, lang: str) -> Iterator[Utterance]:
    """Utterances of a data dir; the language stands before their ids and speakers."""
    audio, speakers = read_table(folder / "wav.scp"), read_table(folder / "utt2spk")
    for utt, text in read_table(folder / "text").items():
        speaker = f"{lang}_{speakers[utt]}"
        yield Utterance(f"{lang}_{utt}", speaker, lang, text, audio.get(utt, ""))


def add_option(parser) -> None:
    """``--espnet_root``, which the variable ESPNET_ROOT sets too."""
    parser.add_argument(
        "--espnet_root",
        default=os.environ.get("ESPNET_ROOT", ""),
        help="ESPnet's tree: its own scripts prepare the data; none: our readers",
    )
