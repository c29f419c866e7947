#!/usr/bin/env bash
# Runs every check of the repository in its own virtual environment: style, types, shell
# scripts, unit tests with the docstrings' examples, and the recipes. All steps run; one that
# failed makes the exit status 1.
set -euo pipefail

usage() {
  cat <<'EOF'
usage: local/test.sh [--quick] [pytest options]

  --quick   leave out tests/integration, which runs whole recipes
  Anything else goes to pytest: local/test.sh --quick tests/experts -k gate -x

PYTHON and VENV choose the environment, as in local/setup.sh, which is run first.
EOF
}

quick=false
case "${1:-}" in
  -h | --help) usage; exit 0 ;;
  --quick) quick=true; shift ;;
esac
options=("$@")

failed=()
step() {
  local name=$1 rc=0
  shift
  printf '[test %3d s] %s%s\n' "$SECONDS" "$name" "${failed[*]:+ (failed so far: ${failed[*]})}"
  "$@" || rc=$?
  [ "$rc" = 0 ] || failed+=("$name")
}

shell_scripts() {
  local path paths=()
  while IFS= read -r path; do
    [ -L "$path" ] || paths+=("$path")
  done < <(git ls-files --cached --others --exclude-standard -- '*.sh' .ci/run)
  # Sourced files have computed names (SC1090, SC1091).
  shellcheck --severity=warning --exclude=SC1090,SC1091 "${paths[@]}"
}

# Tests run in as many processes as there are cores, each with one thread. pytest's 5 is "no tests
# selected", which is fine where the caller selects.
run_pytest() {
  local rc=0
  python -m pytest --numprocesses "$workers" "$@" "${options[@]}" || rc=$?
  [ "$rc" != 5 ] || [ ${#options[@]} = 0 ] || rc=0
  return "$rc"
}

# What whole recipes and pages are tested with: Debian's packages, where this is root's.
test_packages() {
  local missing=()
  PATH=$PATH:/usr/lib/sctk/bin command -v sclite >/dev/null || missing+=(sctk)
  command -v chromium >/dev/null || missing+=(chromium)
  command -v perl >/dev/null || missing+=(perl)
  command -v bats >/dev/null || missing+=(bats)
  [ ${#missing[@]} -gt 0 ] || return 0
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    { apt-get update && apt-get install -y --no-install-recommends "${missing[@]}"; } >/dev/null 2>&1 && return
  fi
  echo "not found: ${missing[*]}; tests that need them are skipped or fail (as root: apt-get install ${missing[*]})"
}

cd "$(dirname "${BASH_SOURCE[0]}")/.."
local/setup.sh
PATH=$(local/setup.sh --venv)/bin:$PATH

cores=$(nproc)
workers=$((cores < 4 ? cores : 4)) # each takes memory for a training
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

step "ruff check" ruff check .
step "ruff format" ruff format --check .
step "mypy" mypy
step "shellcheck" shell_scripts
step "unit tests" run_pytest -m "not integration"
if ! $quick && [ -d tests/integration ]; then
  test_packages
  step "bats" bats tests/egs2
  step "integration tests" run_pytest -m integration
fi
[ ${#failed[@]} = 0 ]
