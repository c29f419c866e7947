#!/usr/bin/env bash
# Stage 1: real speech with transcripts from Debian packages -> data/{train,dev,test}.
#
#   local/data.sh --langs "es fr ro ru" --download_dir downloads --data_dir data
#
# Options (local/data.sh --help says more):
#   --langs         languages, separated by spaces
#   --download_dir  where *.deb files are looked for, fetched to and unpacked
#   --data_dir      where the three Kaldi-style folders are written
#   --max_train, --max_dev, --max_test   utterances kept per language
#   --seed          another split
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if [ -f ./path.sh ]; then
    . ./path.sh
fi
exec "${python:-python3}" "${here}/mini_data.py" "$@"
