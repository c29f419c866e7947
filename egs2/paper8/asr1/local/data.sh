#!/usr/bin/env bash
# Stage 1: AISHELL, LibriSpeech, Common Voice -> data/{train,dev,test}, from the recipe's folder.
#
#   local/data.sh --langs "zh en ko" [--max_train N ...]     local/data.sh --help lists the options
# shellcheck disable=SC2154  # path.sh and db.sh set the variables
set -euo pipefail

. ./path.sh
. ./db.sh
exec "${python}" local/paper8.py --aishell "${AISHELL}" --librispeech "${LIBRISPEECH}" \
    --commonvoice "${COMMONVOICE}" --cv_version "${CV_VERSION}" "$@"
