#!/usr/bin/env bash
# FLEURS: read sentences of Wikipedia, the same ones in 102 languages.
#
#   ./run.sh --langs "ca hi sw" [--fleurs FOLDER]    FOLDER has <name> or <name>.tar.gz (ca_es ...), or gets it
#   ./run.sh ... --quick true                        a few steps on a few clips, to see that everything runs
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/corpus_options.sh"
corpus_options "fleurs" "$@"
cd "$(dirname "${BASH_SOURCE[0]}")"

exec ./lora_experts.sh --langs "ca hi sw" "${rest[@]}"
