# shellcheck shell=bash
# shellcheck disable=SC2154  # lora_experts.sh sources this, and sets the options
# Stages 5 to 8: a training as one command, resumed or left; several of them side by side.

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
        [[ ${dir##*/} != @(mole|kd)* ]] || trained_experts || true
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

# trainings: how many there are in these stages.
trainings() {
    local n=0
    ! within 5 || n=$(${joint_experts} && echo 1 || echo ${#lang_list[@]})
    ! within 6 || n=$((n + $(asked "${train_multi}" "${train_full}")))
    ! within 7 || n=$((n + 1))
    ! within 8 || n=$((n + $(asked true "${train_kd_logits_only}")))
    echo "${n}"
}
asked() { printf '%s\n' "$@" | grep -c true || true; }

# start NAME CONFIG ARGS...: trains exp/NAME beside others.
start() { beside "$1" train "$@"; }

. ./jobs.sh
side_by_side "$(trainings)"
