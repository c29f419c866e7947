# Sourced by the recipes: which Python runs, and how it behaves.

MAIN_ROOT=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../../.." && pwd)

# The repository's own environment, unless one is active or ${python} says otherwise.
if [ -z "${python:-}" ]; then
    venv=$("${MAIN_ROOT}/local/setup.sh" --venv)
    if [ -n "${VIRTUAL_ENV:-}" ]; then
        python=${VIRTUAL_ENV}/bin/python
    elif [ -x "${venv}/bin/python" ]; then
        python=${venv}/bin/python
    else
        python=python3
    fi
fi
export python

# Threads that wait sleep instead of spinning: on a shared machine that is 20 times faster.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(nproc)}
export PYTHONIOENCODING=UTF-8
export TOKENIZERS_PARALLELISM=false
# Silence what ESPnet's dependencies warn about at import.
export PYTHONWARNINGS=${PYTHONWARNINGS:-ignore::FutureWarning,ignore::DeprecationWarning,ignore::UserWarning}
