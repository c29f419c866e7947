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
  --inference_nj 1       decoding jobs
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
  --joint_experts true   train all experts side by side in one job; false: one job each
  --nj_experts 0         of these jobs, most at once; 0: one here, all of them on a cluster
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
joint_experts=true
nj_experts=0
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

# Whether stage $1 is to run; says what it does ($2).
runs() {
    if [ "${stage}" -gt "$1" ] || [ "${stop_stage}" -lt "$1" ] || [[ " ${skip_stages} " == *" $1 "* ]]; then
        return 1
    fi
    log "stage $1 ($((SECONDS - stage_begins)) s): $2"
}

# ["es", "no", ] for ESPnet's options; without the quotes YAML reads no as false, and without a space
# slurm.pl and queue.pl take the quotes away.
listed() { echo "[$(printf '"%s", ' "$@")]"; }

# data_opts train|valid SET: ESPnet's options for one data dir.
data_opts() {
    local dir=${raw}/$2 type=sound
    ! head -n 1 "${dir}/wav.scp" 2>/dev/null | grep -qE '\.ark:[0-9]+$' || type=kaldi_ark # ESPnet's own dumps
    echo "--$1_data_path_and_name_and_type ${dir}/wav.scp,speech,${type}" \
        "--$1_data_path_and_name_and_type ${dir}/text,text,text" \
        "--$1_data_path_and_name_and_type ${dir}/utt2lang,lang,text"
}

# same_run COMMAND: a training's command without what may change when it is resumed.
same_run() {
    sed -E 's/ --(max_epoch|ngpu|num_workers|log_interval|patience) [^ ]+//g' <<<"$1"
}

# launch LOG ARGS...: Python on one device; on several by ESPnet's launcher, or by torchrun.
launch() {
    local log=$1 ranks=(--multiprocessing_distributed false)
    shift
    # shellcheck disable=SC2086  # these may be several words
    if [ -n "${torchrun}" ]; then
        [ "${ngpu}" = 0 ] && ranks+=(--dist_backend gloo) || ranks+=(--ngpu 1)
        ${train_cmd} --gpu "${ngpu}" "${log}" "${python}" -m torch.distributed.run ${torchrun} "$@" "${ranks[@]}"
    elif [ "${ngpu}" -gt 1 ] || [ "${num_nodes}" -gt 1 ]; then
        "${python}" -m espnet2.bin.launch --cmd "${train_cmd}" --log "${log}" --ngpu "${ngpu}" \
            --num_nodes "${num_nodes}" --init_file_prefix "$(dirname "${log}")/.dist_init_" \
            --multiprocessing_distributed true -- "${python}" "$@"
    else
        ${train_cmd} --gpu "${ngpu}" "${log}" "${python}" "$@"
    fi
}

# trained_experts: what was trained, and with which options, to give the experts of stages 7 and 8.
trained_experts() {
    local each=("${lang_list[@]/#/${expdir}/${experts}_}")
    cat "${expdir}/${experts}/.done" "${each[@]/%//.done}" 2>/dev/null
}

# train NAME CONFIG ARGS...: trains exp/NAME, resumes it, or leaves it when it is finished. What was
# trained there with other options or inputs is kept in exp/replaced.
train() {
    local dir=${expdir}/$1 config=$2 inputs wanted kept
    shift 2
    local cmd=(
        -m espnet_lora_experts.bin.train --config "${config}" --ngpu "${ngpu}"
        --backbone "${backbone}" --token_list "${token_list}" --output_dir "${dir}" --resume true
        --use_preprocessor true --use_matplotlib false
        --train_shape_file "${stats_dir}/train/speech_shape"
        --valid_shape_file "${stats_dir}/valid/speech_shape"
    )
    # shellcheck disable=SC2206,SC2207  # these words are split on purpose
    cmd+=($(data_opts train "${train_set}") $(data_opts valid "${valid_set}") ${train_args} "$@")
    inputs=$({
        sed 's/ *#.*//; /^max_epoch:/d' "${config}"
        cat "${raw}/${train_set}"/{utt2num_samples,text,utt2lang}
        [[ ${dir} == */mono* ]] || trained_experts || true
    } | sha256sum)
    wanted="${inputs%% *} $(sed -nE 's/^max_epoch: *([0-9]+).*/--max_epoch \1/p' "${config}") ${cmd[*]}"
    if ${skip_done} && [ "$(cat "${dir}/.done" 2>/dev/null)" = "${wanted}" ]; then
        log "${dir} is finished, with these options and inputs; left as it is"
        return
    fi
    if [ -e "${dir}/checkpoint.pth" ] &&
        [ "$(same_run "$(cat "${dir}/.begun" 2>/dev/null)")" != "$(same_run "${wanted}")" ]; then
        kept=${expdir}/replaced/$(basename "${dir}").$(date +%Y%m%d_%H%M%S)
        mkdir -p "${expdir}/replaced"
        mv "${dir}" "${kept}"
        log "${dir} was trained with other options or inputs: it is ${kept} now, and starts anew"
    fi
    mkdir -p "${dir}"
    rm -f "${dir}/.done"
    echo "${wanted}" >"${dir}/.begun.new" # whole, on a full disk too: it decides what is trained anew
    mv "${dir}/.begun.new" "${dir}/.begun"
    launch "${dir}/train.log" "${cmd[@]}"
    echo "${wanted}" >"${dir}/.done"
    log "${dir}: $(grep -o 'trainable parameters: .*' "${dir}/train.log" | tail -n 1);" \
        "$(grep -oE '[0-9]*epoch results: .*' "${dir}/train.log" | tail -n 1 | grep -oE '^[0-9]*epoch|\[valid\] .*' | tr '\n' ' ' | cut -c1-90)"
}

# experts_apart: a training for each language, some at once; when one fails the others go on.
experts_apart() {
    local lang failed="" most=${nj_experts}
    local -A pids=()
    if [ "${most}" = 0 ]; then
        [ "${cmd_backend:-local}" = local ] && most=1 || most=${#lang_list[@]}
    fi
    set -m # each job is a process group, which ends as a whole
    trap 'kill -- "${pids[@]/#/-}" 2>/dev/null; exit 130' INT TERM
    for lang in "${lang_list[@]}"; do
        while [ "$(jobs -rp | wc -l)" -ge "${most}" ]; do
            wait -n || true
        done
        (
            [ "${cmd_backend:-local}" != local ] || OMP_NUM_THREADS=$(((OMP_NUM_THREADS + most - 1) / most))
            # shellcheck disable=SC2086
            train "mono${suffix}_${lang}" "${expert_config}" --model_conf "languages=$(listed "${lang}")" ${expert_args}
        ) </dev/null &
        pids[${lang}]=$!
    done
    for lang in "${lang_list[@]}"; do
        wait "${pids[${lang}]}" || failed+=" ${lang}"
    done
    trap - INT TERM
    set +m
    if [ -n "${failed}" ]; then
        log "failed:${failed} (${expdir}/mono${suffix}_LANG/train.log); the other experts are trained. Run this again with" \
            "--skip_done true: only the missing ones are trained, from the last epoch that they finished"
        exit 1
    fi
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

if runs 5 "language experts: ${langs}"; then
    parts=""
    if ${joint_experts}; then
        # shellcheck disable=SC2086
        train "mono${suffix}" "${expert_config}" --model_conf "languages=$(listed "${lang_list[@]}")" ${expert_args}
        parts=${expdir}/mono${suffix}
    else
        experts_apart
        parts=$(printf "${expdir}/mono${suffix}_%s " "${lang_list[@]}")
    fi
    "${python}" -m espnet_lora_experts.bin.combine --inputs "${parts}" --output "${expdir}/mono${suffix}" \
        --two_pass "${expdir}/two_pass${suffix}"
fi

if runs 6 "baselines: pooled LoRA$(${train_full} && echo ', full fine-tuning' || true)"; then
    if ${train_multi}; then
        # shellcheck disable=SC2086
        train "multi${suffix}" "${multi_config}" --model_conf "languages=$(listed "${lang_list[@]}")" ${multi_args}
    fi
    if ${train_full}; then
        # shellcheck disable=SC2086
        train "full${suffix}" "${full_config}" --model_conf "languages=$(listed "${lang_list[@]}")" ${full_args}
    fi
fi

if runs 7 "fusion: LoRA MoLE"; then
    teachers=$(experts_conf)
    # shellcheck disable=SC2086
    train "mole${suffix}" "${mole_config}" --model_conf "languages=$(listed "${lang_list[@]}")" \
        --model_conf "experts=${teachers}" ${mole_args}
fi

if runs 8 "knowledge distillation"; then
    teachers=$(experts_conf)
    # shellcheck disable=SC2086
    train "kd${suffix}" "${distill_config}" --model_conf "languages=$(listed "${lang_list[@]}")" \
        --model_conf "experts=${teachers}" ${distill_args}
    if ${train_kd_logits_only}; then
        # shellcheck disable=SC2086
        train "kd_logits_only${suffix}" "${distill_config}" --model_conf "languages=$(listed "${lang_list[@]}")" \
            --model_conf "experts=${teachers}" --model_conf logits_only=true ${distill_args}
    fi
fi

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
