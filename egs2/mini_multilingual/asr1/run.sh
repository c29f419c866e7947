#!/usr/bin/env bash
# Tux Paint's and Fish Fillets' multilingual speech, Whisper-tiny: real, small, CPU, minutes.
#
#   ./run.sh                      es fr ro ru, all stages
#   ./run.sh --langs "cs nl"      other languages: es fr ro ru ca bg be el da (Tux Paint), cs nl
#   ./run.sh --quick true         a few steps on a few clips, to see that everything runs
#   ./run.sh --help               all options
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

quick_opts=()
if [[ " $* " == *" --quick true "* ]]; then
    quick_opts=(--local_data_opts "--max_train 40 --max_dev 8 --max_test 6")
fi
exec ./lora_experts.sh --train_full true --train_kd_logits_only true \
    --inference_config conf/decode_mini.yaml "${quick_opts[@]}" "$@"
