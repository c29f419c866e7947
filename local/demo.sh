#!/usr/bin/env bash
# The main job, end to end, on real speech: sets the environment up, fetches Whisper-tiny and four
# languages of Tux Paint's speech, trains experts, baselines, MoLE and student, decodes with and
# without the language, and prints the results. No GPU; about twenty minutes on two cores.
#
#   bash local/demo.sh [options of run.sh]      again after an interruption: it continues
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

local/setup.sh
cd egs2/mini_multilingual/asr1
exec ./run.sh --skip_done true \
    --local_data_opts "--max_train 240 --max_dev 24 --max_test 40" \
    --train_args "--max_epoch 3" --mole_args "--max_epoch 2" "$@"
