# shellcheck shell=bash
# Sourced by the recipes: which Python runs, and how it behaves.

MAIN_ROOT=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../../.." && pwd)
recipe=$(dirname "${BASH_SOURCE[0]}")

# The active environment, that which this recipe was copied from, or the repository's own, unless
# ${python} says otherwise.
if [ -z "${python:-}" ]; then
    if [ -n "${VIRTUAL_ENV:-}" ]; then
        python=${VIRTUAL_ENV}/bin/python
    elif [ -f "${recipe}/activate_python.sh" ]; then
        . "${recipe}/activate_python.sh"
    elif [ -f "${MAIN_ROOT}/espnet_lora_experts/__init__.py" ]; then
        venv=$("${MAIN_ROOT}/local/setup.sh" --venv)
        [ ! -x "${venv}/bin/python" ] || python=${venv}/bin/python
    fi
    python=${python:-python3}
fi
export python

# Where Debian puts sclite.
[ ! -d /usr/lib/sctk/bin ] || export PATH=${PATH}:/usr/lib/sctk/bin

# How long a waiting thread spins before it sleeps. The default is minutes of computing lost on a
# shared machine (20 times slower beside one busy process), never spinning costs a third of the speed.
export GOMP_SPINCOUNT=${GOMP_SPINCOUNT:-4000}
# Memory that one batch frees is kept for the next, not handed back page by page: a tenth faster.
export MALLOC_MMAP_THRESHOLD_=${MALLOC_MMAP_THRESHOLD_:-4294967296}
export MALLOC_TRIM_THRESHOLD_=${MALLOC_TRIM_THRESHOLD_:-8589934592}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(nproc)}
# Of several processes that srun started, one that fails ends the others.
export SLURM_KILL_BAD_EXIT=1
export PYTHONIOENCODING=UTF-8
export TOKENIZERS_PARALLELISM=false
# Silence what ESPnet's dependencies warn about at import.
export PYTHONWARNINGS=${PYTHONWARNINGS:-ignore::FutureWarning,ignore::DeprecationWarning,ignore::UserWarning}
