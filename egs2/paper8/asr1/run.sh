#!/usr/bin/env bash
# The paper's eight languages: AISHELL zh, LibriSpeech en, Common Voice ko ja id ru vi yue; its
# Whisper-medium, ranks, steps and learning rates. It wants GPUs.
#
#   ./run.sh --aishell FOLDER --librispeech FOLDER --commonvoice FOLDER [--cv_version 21.0] --ngpu 8
#   ./run.sh ... --langs "zh en ko ja id ru vi"      the paper's first seven; yue is added later
#   ./run.sh ... --quick true                        a few steps on a few clips, to see that everything runs
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/corpus_options.sh"
corpus_options "aishell librispeech commonvoice cv_version" "$@"
cd "$(dirname "${BASH_SOURCE[0]}")"

paper=()
for model in expert multi full mole distill; do
    paper+=("--${model}_config" "conf/tuning/train_${model}_paper.yaml")
done
exec ./lora_experts.sh --langs "zh en ko ja id ru vi yue" --backbone openai/whisper-medium \
    --text_policy normalized --local_data_opts "--max_dev 500" "${paper[@]}" \
    --joint_experts false --train_full true --train_kd_logits_only true "${rest[@]}"
