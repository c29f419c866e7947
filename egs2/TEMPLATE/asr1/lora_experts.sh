#!/usr/bin/env bash
# shellcheck disable=SC2034,SC2154  # set for, and by, the files that are sourced
# Whisper LoRA language experts, their fusion and their distillation, stage by stage.
set -euo pipefail

log() { echo "$(date '+%H:%M:%S') (${BASH_SOURCE[1]##*/}:${BASH_LINENO[0]}) $*"; }
stage_begins=${SECONDS}
command="./lora_experts.sh$([ $# = 0 ] || printf ' %q' "$@")"
options=("$@")

help_message=$(cat <<'END'
Usage: ./run.sh [--option value ...]      (or ./lora_experts.sh, its options are the same)

Stages
   1 data        local/data.sh writes data/{train,dev,test}
   2 format      audio and text into dump/raw: 16 kHz, text policy, languages checked
   3 backbone    fetches Whisper, writes the token list
   4 statistics  lengths of speech and text
   5 experts     one LoRA for each language (exp/mono)
   6 baselines   one pooled LoRA (exp/multi); full fine-tuning if asked (exp/full)
   7 fusion      LoRA MoLE (exp/mole)
   8 distill     the experts into one LoRA (exp/kd; exp/kd_logits_only if asked)
   9 decode      every system, language-aware and language-agnostic
  10 score       WER, CER, LID, intervals: exp/results.json, RESULTS.md
  11 report      one HTML page: tables, charts, the worst errors to listen to (exp/report.html)
  12 export      for other programs, if asked (--export_to; exp/export)
  13 upload      to the hub, if asked (--hub_repo)

General
  --stage 1 --stop_stage 13 --skip_stages ""   which stages run
  --skip_done false      leave out what is finished and has the same options and inputs
  --ngpu 0               GPUs of each machine for training (several: DDP) and for decoding
  --num_nodes 1          machines for each training, with cmd_backend=slurm or sge (see cmd.sh)
  --torchrun ""          train by torchrun with these options, as in "--nproc_per_node 2", on CPUs too
  --inference_nj 1       decoding jobs, which share the threads of a machine
  --expdir exp  --dumpdir dump  --data_dir data   where models and results, formatted data, and data go
  --quick false          a few steps on a few clips: tests that everything runs
Data
  --langs "es fr ro ru"  target languages: Whisper's codes
  --train_set train --valid_set dev --test_sets test    data dirs: wav.scp text utt2lang utt2spk
                         (your own: put them under data/ and start with --stage 2; dump/raw/<set> of ESPnet's
                         asr.sh, of wav, flac or ark: start with --stage 3)
  --local_data_opts ""   for local/data.sh
  --download_dir ""      where local/data.sh and the backbone look for packages and keep them
  --min_wav_duration 0.1  --max_wav_duration 30   seconds; other utterances are left out and counted
  --text_policy raw      raw, lower or normalized (as scored: no case, no punctuation)
  --text_case "" --text_punctuation ""    instead of what the policy says: lower or keep; remove or keep
  --keep_other_script false               keep texts mostly in another script than their language's
Models
  --backbone openai/whisper-tiny   any Whisper: hub id, folder, whisper.cpp or CTranslate2 files
  --expert_config conf/train_expert.yaml  --expert_args "--max_epoch 3"   and likewise
  --multi_config, --full_config, --mole_config, --distill_config, *_args: ESPnet's options
  --train_args ""        for every training; a model's own *_args win
  --nj_train 0           trainings at once, which share the threads; 0: two on CPUs, one on each GPU, all on a cluster
  --joint_experts true   train all experts side by side in one job; false: one job each
  --train_multi true     the pooled LoRA
  --train_full false     full fine-tuning too
  --train_kd_logits_only false            distillation without the layers' terms too
  --tag ""               what stages 5 to 8 train is named with it, exp/mole_TAG: other options beside
                         the first; see ./sweep.sh --help
  --experts mono         the experts in exp that stages 7 and 8 start from
Add a language
  --add_lang ""          to a finished run, given its options: trains the expert of "be", extends MoLE and
                         student, compares before and after: exp/add_be/RESULTS.md; what was there stays
  --add_share 20         % of the steps that MoLE and student were trained for
Results
  --systems ""           default: all that were trained
  --cross_experts true   decode every language with every expert too
  --inference_config conf/decode_greedy.yaml  --inference_args ""    for bin/decode
  --score_case lower  --score_punctuation remove    of the scored texts; or keep
  --padded ""            systems to decode with their clips padded to 30 s too, as NAME@30s
  --baseline multi       the systems that p-values compare with; tables show the first
  --results_dir exp  --results_md exp/RESULTS.md    where results.json and the tables go
  --report_args ""       for bin/report
Elsewhere
  --export_system kd  --export_to ""      huggingface, ctranslate2, ggml, or several of them
  --hub_repo ""          user/name: where --export_system is uploaded to
END
)

# General
stage=1
stop_stage=13
skip_stages=""
skip_done=false
ngpu=0
num_nodes=1
torchrun=""
inference_nj=1
expdir=exp
dumpdir=dump
data_dir=data
quick=false
# Data
langs="es fr ro ru"
train_set=train
valid_set=dev
test_sets="test"
local_data_opts=""
download_dir=""
min_wav_duration=0.1
max_wav_duration=30
text_policy=raw
text_case=""
text_punctuation=""
keep_other_script=false
# Models
backbone=openai/whisper-tiny
expert_config=conf/train_expert.yaml
multi_config=conf/train_multi.yaml
full_config=conf/train_full.yaml
mole_config=conf/train_mole.yaml
distill_config=conf/train_distill.yaml
expert_args=""
multi_args=""
full_args=""
mole_args=""
distill_args=""
train_args=""
nj_train=0
joint_experts=true
train_multi=true
train_full=false
train_kd_logits_only=false
tag=""
experts=mono
# Add a language
add_lang=""
add_share=20
# Results
systems=""
cross_experts=true
inference_config=conf/decode_greedy.yaml
inference_args=""
score_case=lower
score_punctuation=remove
padded=""
baseline=multi
results_dir=""
results_md=""
report_args=""
# Elsewhere
export_system=kd
export_to=""
hub_repo=""

. ./path.sh
. ./cmd.sh
. ./db.sh
. ./parse_options.sh

# Names become words of lists, paths and options of ESPnet, which take neither spaces nor commas; paths
# too, but for a download_dir, which is always quoted.
set -f # no wildcards in the names
for option in langs train_set valid_set test_sets add_lang systems padded baseline experts export_system export_to; do
    for name in ${!option}; do
        if ! [[ ${name} =~ ^[[:alnum:]_][[:alnum:]_.@+-]*$ ]]; then
            echo "$0: names in --${option} must be letters, digits, '_', '-', '.', '@' and '+', but got '${name}'" >&2
            exit 2
        fi
    done
done
set +f
for option in tag dumpdir expdir data_dir backbone hub_repo results_dir; do
    if [[ ${!option} =~ [^[:alnum:]_.@+/:~-] ]]; then
        echo "$0: --${option} must have no spaces, commas, quotes or wildcards, but got '${!option}'" >&2
        exit 2
    fi
done

raw=${dumpdir}/raw
token_list=data/token_list/${backbone//\//--}/tokens.txt
stats_dir=${expdir}/stats
suffix=${tag:+_${tag}}
results_dir=${results_dir:-${expdir}}
results_md=${results_md:-${results_dir}/RESULTS.md}
read -r -a lang_list <<<"${langs}"
if [ "${num_nodes}" -gt 1 ] && [[ ${cmd_backend:-local} =~ ^(local|run|ssh)$ ]]; then
    log "--num_nodes ${num_nodes} must go through a cluster, cmd_backend=slurm or sge, but it is ${cmd_backend:-local}"
    exit 2
fi
if ${quick}; then
    train_args="--num_iters_per_epoch 4 --max_epoch 1 --batch_bins 320000 ${train_args}"
    inference_args="--max_tokens 40 ${inference_args}"
    report_args="--clips_per_language 3 ${report_args}"
fi

# within STAGE: whether it is to run.
within() {
    [ "${stage}" -le "$1" ] && [ "${stop_stage}" -ge "$1" ] && [[ " ${skip_stages} " != *" $1 "* ]]
}

# runs STAGE TEXT: the same; says what it does.
runs() {
    within "$1" || return 1
    log "stage $1 ($((SECONDS - stage_begins)) s): $2"
}

# experts_conf: the experts of exp/${experts} as ESPnet's option {"es": folder, ...}.
experts_conf() {
    "${python}" - "${expdir}/${experts}" <<'END'
import json, sys
from espnet_lora_experts.bin import cli
from espnet_lora_experts.whisper.description import read_description

def main():
    folder = sys.argv[1]
    experts = read_description(folder)["experts"]
    print(json.dumps({name: f"{folder}/{path}" for name, path in experts.items()}))

cli.run(main)
END
}

if [ -n "${add_lang}" ]; then
    . ./add_lang.sh
    exit
fi

if runs 1 "data: ${langs}"; then
    # shellcheck disable=SC2086
    local/data.sh --langs "${langs}" --download_dir "${download_dir:-${MINI_MULTILINGUAL}}" \
        --data_dir "${data_dir}" ${local_data_opts}
fi

if runs 2 "format: dump/raw, text policy ${text_policy}"; then
    ins="" outs="" tests=""
    for set in ${test_sets}; do
        tests+=" ${data_dir}/${set}"
    done
    for set in ${train_set} ${valid_set} ${test_sets}; do
        ins+=" ${data_dir}/${set}" outs+=" ${raw}/${set}"
    done
    "${python}" -m espnet_lora_experts.bin.format_data --in_dirs "${ins}" --out_dirs "${outs}" \
        --pooled_dirs "${tests}" --langs "${langs}" --text_policy "${text_policy}" \
        ${text_case:+--text_case "${text_case}"} ${text_punctuation:+--text_punctuation "${text_punctuation}"} \
        --keep_other_script "${keep_other_script}" \
        --min_wav_duration "${min_wav_duration}" --max_wav_duration "${max_wav_duration}"
fi

if runs 3 "backbone: ${backbone}"; then
    "${python}" -m espnet_lora_experts.bin.backbone --backbone "${backbone}" --langs "${langs}" \
        --token_list "${token_list}" --expdir "${expdir}" ${download_dir:+--download_dir "${download_dir}"}
fi

if runs 4 "statistics"; then
    dirs="${raw}/${train_set} ${raw}/${valid_set}"
    for set in ${test_sets}; do
        [ ! -d "${raw}/${set}" ] || dirs+=" ${raw}/${set}"
    done
    "${python}" -m espnet_lora_experts.bin.format_data --check_dirs "${dirs}" --langs "${langs}"
    mkdir -p "${stats_dir}"/{train,valid}
    cp "${raw}/${train_set}/utt2num_samples" "${stats_dir}/train/speech_shape"
    cp "${raw}/${valid_set}/utt2num_samples" "${stats_dir}/valid/speech_shape"
    log "$(wc -l <"${stats_dir}/train/speech_shape") training and" \
        "$(wc -l <"${stats_dir}/valid/speech_shape") validation utterances"
fi

. ./trainings.sh
in_all=(--model_conf "languages=$(listed "${lang_list[@]}")")
parts=() # what stage 5 trains

# shellcheck disable=SC2086  # the options are several words
if runs 5 "language experts: ${langs}"; then
    if ${joint_experts}; then
        parts=("mono${suffix}")
        start "mono${suffix}" "${expert_config}" "${in_all[@]}" ${expert_args}
    else
        parts=("${lang_list[@]/#/mono${suffix}_}")
        for lang in "${lang_list[@]}"; do
            start "mono${suffix}_${lang}" "${expert_config}" --model_conf "languages=$(listed "${lang}")" ${expert_args}
        done
    fi
fi

# shellcheck disable=SC2086
if runs 6 "baselines: pooled LoRA$(${train_full} && echo ', full fine-tuning' || true)"; then
    ! ${train_full} || start "full${suffix}" "${full_config}" "${in_all[@]}" ${full_args}
    ! ${train_multi} || start "multi${suffix}" "${multi_config}" "${in_all[@]}" ${multi_args}
fi

if [ ${#parts[@]} -gt 0 ]; then
    finish "${parts[@]}"
    "${python}" -m espnet_lora_experts.bin.combine --inputs "${parts[*]/#/${expdir}/}" \
        --output "${expdir}/mono${suffix}" --two_pass "${expdir}/two_pass${suffix}"
fi

if within 7 || within 8; then
    teachers=$(experts_conf)
    taught=("${in_all[@]}" --model_conf "experts=${teachers}")
fi

# Students take longest, so they begin first: no other one is alone at the end.
# shellcheck disable=SC2086
if runs 8 "knowledge distillation"; then
    start "kd${suffix}" "${distill_config}" "${taught[@]}" ${distill_args}
    ! ${train_kd_logits_only} || start "kd_logits_only${suffix}" "${distill_config}" "${taught[@]}" \
        --model_conf logits_only=true ${distill_args}
fi

# shellcheck disable=SC2086
if runs 7 "fusion: LoRA MoLE"; then
    start "mole${suffix}" "${mole_config}" "${taught[@]}" ${mole_args}
fi

finish "${!started[@]}"
trap - EXIT INT TERM

if [ -z "${systems}" ]; then
    for name in vanilla {mono,two_pass,multi,mole,kd,kd_logits_only,full}{,"${suffix}"}; do
        if [ -f "${expdir}/${name}/system.json" ] && [[ " ${systems} " != *" ${name} "* ]]; then
            systems+=" ${name}"
        fi
    done
    for name in ${padded}; do
        systems+=" ${name}@30s"
    done
fi

if runs 9 "decode:${systems}"; then
    decode=(
        "${python}" -m espnet_lora_experts.bin.decode --expdir "${expdir}" --systems "${systems}"
        --data_root "${raw}" --test_sets "${test_sets}" --langs "${langs}" --backbone "${backbone}"
        --ngpu "${ngpu}" --nj "${inference_nj}" --config "${inference_config}"
    )
    # shellcheck disable=SC2206
    decode+=(${inference_args})
    ! ${skip_done} || decode+=(--skip_done)
    ! ${cross_experts} || decode+=(--cross)
    # shellcheck disable=SC2086
    ${decode_cmd} --gpu "${ngpu}" "JOB=1:${inference_nj}" "${expdir}/decode.JOB.log" "${decode[@]}" --job JOB
    [ "${inference_nj}" = 1 ] || "${decode[@]}" --job 0
fi

if runs 10 "score"; then
    "${python}" -m espnet_lora_experts.bin.score --expdir "${expdir}" --test_sets "${test_sets}" \
        --data_root "${raw}" --systems "${systems}" --baseline "${baseline}" --output "${results_dir}" \
        --score_case "${score_case}" --score_punctuation "${score_punctuation}" --whisper_spellings "${backbone}" \
        --results_md "${results_md}" --command "${command}" --about "backbone=${backbone} text_policy=${text_policy}"
    if command -v sclite >/dev/null; then
        for dir in "${expdir}"/*/decode_*/*/score_{wer,cer}; do
            (cd "${dir}" && sclite -r ref.trn trn -h hyp.trn trn -i rm -o all stdout >result.txt)
        done
        log "sclite's results: ${expdir}/*/decode_*/*/score_{wer,cer}/result.txt"
    fi
    log "results: ${results_md}, ${results_dir}/results.json"
fi

if runs 11 "report"; then
    # shellcheck disable=SC2086
    "${python}" -m espnet_lora_experts.bin.report --expdir "${expdir}" --data_root "${raw}" \
        --test_sets "${test_sets}" --results "${results_dir}/results.json" \
        --output "${results_dir}/report.html" --ngpu "${ngpu}" ${report_args}
    log "report: ${results_dir}/report.html"
fi

if [ -n "${export_to}" ] && runs 12 "export: ${export_system} to ${export_to}"; then
    for format in ${export_to}; do
        "${python}" -m espnet_lora_experts.bin.export "${expdir}/${export_system}" --to "${format}" --force \
            "${expdir}/export/${export_system}_${format}"
    done
fi

if [ -n "${hub_repo}" ] && runs 13 "upload: ${export_system} to ${hub_repo}"; then
    "${python}" -m espnet_lora_experts.bin.push "${expdir}/${export_system}" "${hub_repo}"
fi

log "finished in $((SECONDS - stage_begins)) s"
