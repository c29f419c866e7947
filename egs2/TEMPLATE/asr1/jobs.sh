# shellcheck shell=bash
# shellcheck disable=SC2154  # who sources this sets cmd_backend, nj_train, ngpu, torchrun, expdir and log
# Trainings side by side: lora_experts.sh's, and those of sweep.sh.

# side_by_side N: sets at_once, how many of N trainings run at once. On a CPU two, of half the
# threads each, are faster than one after the other; a GPU is for one.
side_by_side() {
    local most=${nj_train}
    if [ "${most}" = 0 ]; then
        most=1
        if ! ${here}; then
            most=$1
        elif [ "${ngpu}" = 0 ] && [ -z "${torchrun}" ] && [ "${OMP_NUM_THREADS}" -gt 1 ]; then
            most=2
        fi
    fi
    at_once=$((most < $1 ? most : $1))
}

# beside NAME COMMAND...: runs what trains exp/NAME beside others, when fewer than ${at_once} run.
beside() {
    while [ "$(jobs -rp | wc -l)" -ge "${at_once}" ]; do
        wait -n || true
    done
    set -m # a process group of its own, which ends as a whole
    (
        ! ${here} || OMP_NUM_THREADS=$(((OMP_NUM_THREADS + at_once - 1) / at_once))
        "${@:2}"
    ) </dev/null &
    set +m
    started[$1]=$!
}

# finish NAME...: waits for these trainings. When one has failed the others go on to their end.
finish() {
    local name failed=""
    for name in "$@"; do
        wait "${started[${name}]}" || failed+=" ${expdir}/${name}/train.log"
    done
    if [ -n "${failed}" ]; then
        wait
        log "failed:${failed}; what was trained beside is kept. Run this again with --skip_done true: only what is" \
            "missing is trained, from the last epoch that it finished"
        exit 1
    fi
}

# stop_all: what still runs when this ends before it; of a shell that was killed alone, its training.
stop_all() {
    local pid running
    running=" $(jobs -rp | tr '\n' ' ')"
    for pid in "${started[@]}"; do
        if [[ ${running} == *" ${pid} "* ]] || ! wait "${pid}"; then
            kill -- "-${pid}" 2>/dev/null || true
        fi
    done
    wait
}

[[ ${cmd_backend:-local} =~ ^(local|run)$ ]] && here=true || here=false # on this machine
declare -A started=()
trap stop_all EXIT
trap 'log "stopped; the same command again resumes each training after its last finished epoch"; exit 130' INT TERM
