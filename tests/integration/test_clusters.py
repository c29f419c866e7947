"""Jobs through ESPnet's slurm.pl and queue.pl; schedulers that run them at once."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.integration

SBATCH = r"""#!/usr/bin/env bash
# As SLURM, with the variables of --export only, and two machines that are this one.
echo "$*" >>"${0%/*}/submitted"
tasks=1
while [ $# -gt 1 ]; do
    case "$1" in
        --array) tasks=$(seq ${2/-/ }) ;;
        --nodes) nodes=$2 ;;
    esac
    shift
done
echo "Submitted batch job 7"
for task in ${tasks}; do
    env -i PATH="${PATH}" HOME="${HOME}" PYTHONPATH="${PYTHONPATH:-}" \
        SLURM_ARRAY_TASK_ID="${task}" nodes="${nodes:-1}" bash "$1" &
done
wait
"""
SRUN = r"""#!/usr/bin/env bash
shift # --export
export SLURM_NTASKS=${nodes} SLURM_STEP_NUM_NODES=${nodes}
export SLURM_STEP_NODELIST=here SLURM_LOCALID=0
for ((SLURM_PROCID = 0; SLURM_PROCID < nodes; SLURM_PROCID++)); do
    export SLURM_PROCID SLURM_NODEID=${SLURM_PROCID}
    "$@" &
done
wait -n && wait -n
"""
QSUB = r"""#!/usr/bin/env bash
# As Grid Engine, with the variables of -v only.
echo "$*" >>"${0%/*}/submitted"
tasks=1
while [ $# -gt 1 ]; do
    [ "$1" != -t ] || tasks=$(seq ${2/:/ })
    shift
done
echo 'Your job-array 7.1-2:1 ("job") has been submitted'
for task in ${tasks}; do
    env -i PATH="${PATH}" SGE_TASK_ID="${task}" bash "$1" &
done
wait
"""


@pytest.fixture
def cluster(tree, tmp_path):
    """Environment of a machine with both schedulers, and what was submitted."""
    folder = tmp_path / "schedulers"
    folder.mkdir()
    for name, script in (("sbatch", SBATCH), ("srun", SRUN), ("qsub", QSUB)):
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
    found = {"ESPNET_ROOT": str(tree), "PATH": f"{folder}:{os.environ['PATH']}"}
    found |= {"OMP_NUM_THREADS": "1", "python": sys.executable}
    return {**os.environ, **found}, folder / "submitted"


@pytest.mark.parametrize("backend", ["slurm", "sge"])
def test_arguments_and_numbers_of_jobs_arrive(cluster, tmp_path, backend):
    """Quotes too: without them YAML reads a Norwegian expert as false."""
    environment, submitted = cluster
    for name in ("path.sh", "cmd.sh", "conf"):
        (tmp_path / name).symlink_to(ROOT / "egs2/mini_multilingual/asr1" / name)
    words = ['languages=["es", "no", ]', 'experts={"no": "exp/no"}', "a b", "JOB"]
    script = ". ./path.sh && . ./cmd.sh && ${decode_cmd} --gpu 0 JOB=1:2 log/JOB.log "
    script += shlex.join(["./show", *words])
    (tmp_path / "show").write_text("#!/bin/sh\nprintf '<%s>' \"$@\"\n")
    (tmp_path / "show").chmod(0o755)
    done = subprocess.run(
        ["bash", "-ec", script],
        cwd=tmp_path,
        env={**environment, "cmd_backend": backend},
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    asked = {"slurm": "-p cpu.*--array 1-2", "sge": "-cwd.*-t 1:2"}[backend]
    assert re.search(asked, submitted.read_text())
    for job in "12":
        said = (tmp_path / f"log/{job}.log").read_text()
        assert "".join(f"<{word}>" for word in [*words[:3], job]) in said


def test_stages_go_through_slurm(recipe, run, cluster, monkeypatch):
    """Two ranks train by ESPnet's launcher; two jobs decode what one job does."""
    environment, submitted = cluster
    for name, value in {**environment, "cmd_backend": "slurm"}.items():
        monkeypatch.setenv(name, value)
    exp, left_out = recipe / "exp_cluster", shutil.ignore_patterns("decode_*")
    shutil.copytree(recipe / "exp/multi", exp / "multi", ignore=left_out)
    options = ["--expdir", exp.name, "--stage", "4", "--stop_stage", "9"]
    options += ["--skip_stages", "6 7 8", "--num_nodes", "2", "--inference_nj", "2"]
    options += ["--train_args", "--batch_bins 640000"]  # for two of the longest
    done = run(recipe, *options, "--systems", "multi")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    asked = submitted.read_text().splitlines()
    assert ["--nodes 2" in line for line in asked] == [True, False]
    assert ["--array 1-2" in line for line in asked] == [False, True]
    log = (exp / "mono/train.log").read_text()
    assert re.search(r"^\[[^]]*:0/2\] .*epoch results", log, re.M)
    assert len(json.loads((exp / "mono/system.json").read_text())["experts"]) == 4
    for mode in ("aware", "agnostic"):
        one, two = (recipe / x / f"multi/decode_{mode}/test" for x in ("exp", exp.name))
        assert (two / "output.2/1best_recog/text").exists()
        for table in ("text", "token", "lang"):
            assert (two / table).read_bytes() == (one / table).read_bytes()
