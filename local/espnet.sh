#!/usr/bin/env bash
# Fetches ESPnet's source tree with its recipes (egs2), which no wheel has: the source
# distribution from the package index, its hash checked, unpacked. Nothing is installed.
set -euo pipefail

version=202611
sha256=eb5816c4d2e4a18eaa2afacc2f8cf74f93e5534dec0fdcee0b2c89b6f7ddd1fd

usage() {
  cat <<EOF
usage: local/espnet.sh [DIR]

Unpacks the source distribution of ESPnet $version into DIR (downloads/espnet-$version). A tree
that is there already is left as it is. Any Python will do: the tree is only read by recipes,
as in  egs2/mini_an4/asr1/run.sh --espnet_root DIR
EOF
}

say() { printf '[espnet %3d s] %s\n' "$SECONDS" "$*"; }
die() { printf '[espnet %3d s] error: %s\n' "$SECONDS" "$*" >&2; exit 1; }

case "${1:-}" in
  -h | --help) usage; exit 0 ;;
  -*) usage >&2; exit 2 ;;
esac
[ $# -le 1 ] || { usage >&2; exit 2; }

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
dir=${1:-$root/downloads/espnet-$version}
if [ "$(cat "$dir/version.txt" 2>/dev/null)" = "$version" ] && [ -d "$dir/egs2" ]; then
  say "$dir is there already"
  exit 0
fi
[ ! -e "$dir" ] || die "$dir must not exist yet, or be ESPnet $version's tree, but is neither; give another DIR"

python=${VIRTUAL_ENV:-$("$root/local/setup.sh" --venv)}/bin/python
[ -x "$python" ] || python=python3
mkdir -p "$(dirname "$dir")"
temp=$(mktemp -d "$dir.XXXXXX")
trap 'rm -rf "$temp"' EXIT

# pip checks the hash first; then it asks the package for its metadata, for which it uses the
# setuptools of this environment, and writes the file. Its own Python may be too old to install it.
say "downloading espnet $version's source distribution (36 MB)"
echo "espnet==$version --hash=sha256:$sha256" >"$temp/requirements.txt"
"$python" -m pip download --quiet --disable-pip-version-check --progress-bar off \
  --no-deps --no-binary espnet --no-build-isolation --ignore-requires-python --require-hashes \
  --dest "$temp" --requirement "$temp/requirements.txt" >"$temp/pip.log" 2>&1 \
  || { cat "$temp/pip.log" >&2; die "pip could not download espnet $version; put its tree at $dir by hand, or try again"; }

say "unpacking"
tar --extract --gzip --no-same-owner --directory "$temp" --file "$temp"/espnet-*.tar.gz
mv "$temp/espnet-$version" "$dir"
say "$dir: egs2 with $(find "$dir/egs2" -mindepth 1 -maxdepth 1 -type d | wc -l) corpora"
