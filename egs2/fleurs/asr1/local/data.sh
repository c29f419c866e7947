#!/usr/bin/env bash
# Stage 1: FLEURS -> data/{train,dev,test}, from the recipe's folder.
#
#   local/data.sh --langs "ca hi" [--max_train N ...]     local/data.sh --help lists the options
# shellcheck disable=SC2154  # path.sh and db.sh set the variables
set -euo pipefail

. ./path.sh
. ./db.sh
exec "${python}" local/fleurs.py --fleurs "${FLEURS}" "$@"
