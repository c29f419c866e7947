#!/usr/bin/env bash
# Stage 1: MLS -> data/{train,dev,test}, from the recipe's folder.
#
#   local/data.sh --langs "pl pt" [--max_train N ...]     local/data.sh --help lists the options
# shellcheck disable=SC2154  # path.sh and db.sh set the variables
set -euo pipefail

. ./path.sh
. ./db.sh
exec "${python}" local/mls.py --mls "${MLS}" "$@"
