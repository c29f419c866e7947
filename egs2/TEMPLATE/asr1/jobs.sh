# shellcheck shell=bash
# shellcheck disable=SC2154  # who sources this sets cmd_backend, nj_train, ngpu, torchrun, expdir and log
# Trainings side by side: lora_experts.sh's, and those of sweep.sh.

. ./shares.sh

# side_by_side N: sets at_once, how many of N trainings run at once. On a CPU two, of half the
# threads each, are faster than one after the other; of GPUs each training has its own.
side_by_side() {
    local most=${nj_train}
    if [ "${most}" = 0 ]; then
        if ! ${here}; then
            most=$1
        elif [ -n "${torchrun}" ]; then # all of its ranks would meet at one port
            most=1
        elif [ "${ngpu}" = 0 ]; then
            most=$((OMP_NUM_THREADS > 1 ? 2 : 1))
        elif [ "${cmd_backend:-local}" = local ]; then # run.pl gives no job GPUs of its own
            most=$(gpu_groups "${ngpu}" | wc -l)
        fi
    fi
    at_once=$((most < $1 ? most : $1))
    at_once=$((at_once > 1 ? at_once : 1))
}

# beside NAME COMMAND...: runs what trains exp/NAME beside others, once one of ${at_once} places is free.
beside() {
    local place
    until free_place; do
        wait -n || true
    done
    set -m # a process group of its own, which ends as a whole
    (
        export job_place=$((${job_place:-0} + place)) # run_job.sh gives each its own GPUs
        ! ${here} || share_threads "${at_once}"
        "${@:2}"
    ) </dev/null &
    set +m
    started[$1]=$!
    places[place]=$!
}

# free_place: sets place to the first where nothing runs; fails if there is none.
free_place() {
    for ((place = 0; place < at_once; place++)); do
        running "${places[place]:-none}" || return 0
    done
    return 1
}

# running PID: whether this job of ours still runs.
running() { [[ " $(jobs -rp | tr '\n' ' ')" == *" $1 "* ]]; }

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
    local pid
    for pid in "${started[@]}"; do
        if running "${pid}" || ! wait "${pid}"; then
            kill -- "-${pid}" 2>/dev/null || true
        fi
    done
    wait
}

[[ ${cmd_backend:-local} =~ ^(local|run)$ ]] && here=true || here=false # on this machine
declare -A started=() # the process that trains each
places=()             # the one that has each place
trap stop_all EXIT
trap 'log "stopped; the same command again resumes each training after its last finished epoch"; exit 130' INT TERM
