#!/usr/bin/env bash
# Runs a command, or N of them, on this machine, with a log and signs of life.
#
#   run_job.sh [--gpu N] [--mem X] [JOB=1:N] LOG COMMAND...
#
# The interface of Kaldi's run.pl: in LOG and COMMAND the word JOB becomes the job's number.
# Jobs share the threads; with --gpu N each has N GPUs of its own, as far as there are. Every
# ${progress_interval} seconds the latest line of progress is shown; when a job fails, the end of its log.
set -uo pipefail

. "$(dirname "$0")/shares.sh"
first=1 last=1 ngpu=0
while [ $# -gt 0 ]; do
    case "$1" in
        --gpu) ngpu=$2; shift 2 ;;
        --*) shift 2 ;;
        JOB=*:*) first=${1#JOB=} last=${first#*:} first=${first%:*}; shift ;;
        *) break ;;
    esac
done
if [ $# -lt 2 ]; then
    sed -n '2,/^set/{/^set/!p}' "$0" >&2
    exit 2
fi
log=$1
shift

latest() {
    local line left
    line=$(tr '\r' '\n' <"$1" | grep -E 'batch:|epoch results|it/s|s/it' | grep -vE '^(#|Loading weights)' | tail -n 1 |
        sed -E 's/^\[[^]]*\] [0-9-]* ([0-9:]*),[0-9]* \([^)]*\) INFO: /\1 /; s/iter_time[^,]*, //' | cut -c1-110)
    left=$(grep -oE 'Estimated time to finish: .*' "$1" | tail -n 1)
    echo "${line}${left:+ (${left#*finish: } to go)}"
}

share_threads "$((last - first + 1))"
groups=()
[ "${ngpu}" = 0 ] || mapfile -t groups < <(gpu_groups "${ngpu}")
pids=() logs=()
# Jobs end by themselves: a training after its step, saying how it is resumed.
trap 'kill "${pids[@]}" ${watcher:-} 2>/dev/null; wait "${pids[@]}"; exit 130' INT TERM
for ((job = first; job <= last; job++)); do
    joblog=${log//JOB/${job}}
    mkdir -p "$(dirname "${joblog}")"
    {
        echo "# ${*//JOB/${job}}"
        echo "# started $(date)"
    } >"${joblog}"
    if [ ${#groups[@]} -gt 0 ]; then # ${job_place}: of what runs beside other jobs
        export CUDA_VISIBLE_DEVICES=${groups[(${job_place:-0} + job - first) % ${#groups[@]}]}
    fi
    "${@//JOB/${job}}" </dev/null >>"${joblog}" 2>&1 &
    pids+=($!) logs+=("${joblog}")
done

(
    shown=
    trap 'kill "${nap}" 2>/dev/null; exit' TERM
    while sleep "${progress_interval:-15}" & nap=$!; wait "${nap}"; do
        now=$(latest "${logs[0]}")
        if [ "${now}" != "${shown}" ]; then
            echo "    ${logs[0]}: ${now}"
            shown=${now}
        fi
    done
) &
watcher=$!

failed=0
for i in "${!pids[@]}"; do
    wait "${pids[$i]}"
    rc=$?
    echo "# ended (code ${rc}) $(date)" >>"${logs[$i]}"
    if [ "${rc}" != 0 ]; then
        failed=1
        echo "run_job.sh: failed with code ${rc}, log in ${logs[$i]}; its end:" >&2
        tail -n 15 "${logs[$i]}" >&2
    fi
done
kill "${watcher}" 2>/dev/null
wait "${watcher}" 2>/dev/null
exit "${failed}"
