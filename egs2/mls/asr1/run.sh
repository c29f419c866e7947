#!/usr/bin/env bash
# MLS, Multilingual LibriSpeech: audio books in de en es fr it nl pl pt.
#
#   ./run.sh --langs "pl pt" [--mls FOLDER]    FOLDER has mls_polish or mls_polish.tar.gz, or gets it
#   ./run.sh ... --local_data_opts "--supervision 10h --max_dev 500"     the official ten hours
#   ./run.sh ... --quick true                  a few steps on a few clips, to see that everything runs
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/corpus_options.sh"
corpus_options "mls" "$@"
cd "$(dirname "${BASH_SOURCE[0]}")"

exec ./lora_experts.sh --langs "pl pt" --local_data_opts "--max_dev 500" "${rest[@]}"
