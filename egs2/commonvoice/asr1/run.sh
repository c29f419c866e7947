#!/usr/bin/env bash
# Common Voice, any languages, any release.
#
#   ./run.sh --langs "ca eo" --commonvoice FOLDER    FOLDER has cv-corpus-<version>-<date>/<locale>, or archives
#   ./run.sh ... --cv_version 21.0                   that release; default: the newest in FOLDER
#   ./run.sh ... --quick true                        a few steps on a few clips, to see that everything runs
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/corpus_options.sh"
corpus_options "commonvoice cv_version" "$@"
cd "$(dirname "${BASH_SOURCE[0]}")"

exec ./lora_experts.sh --langs "ca eo" --local_data_opts "--max_dev 500" "${rest[@]}"
