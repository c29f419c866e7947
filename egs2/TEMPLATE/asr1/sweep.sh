#!/usr/bin/env bash
# shellcheck disable=SC2154  # path.sh sets python
# Trains variants of systems after a finished run, and compares them on the validation set.
#
#   ./sweep.sh [--on SETS] conf/sweeps/merged_layers.txt [options of run.sh: the finished run's]
#
# A line of the file is SYSTEM TAG OPTIONS: the system (mono, multi, mole or kd) is trained with
# these options of ESPnet's as exp/SYSTEM_TAG. mole and kd start from the experts of their own tag
# where a line before trains these, else from those of the run, exp/mono. A line of one word is
# compared only: a system that is there, or another way to decode one (mole@top2, two_pass@kd,
# kd@30s). Text after a # says what the line is; the first line that is all comment titles the table.
# What is finished is left as it is, so an interrupted sweep continues when it is started again.
# The results are exp/sweeps/NAME/{RESULTS.md,results.json,TABLE.md}; the last is printed.
# --on names other sets of dump/raw than the validation set to compare on.
set -euo pipefail

if [ $# = 0 ] || [ "$1" = -h ] || [ "$1" = --help ]; then
    sed -n '3,/^set/{/^set/!s/^# \{0,1\}//p}' "$0"
    exit 0
fi
sets=""
if [ "$1" = --on ]; then
    sets=$2
    shift 2
fi
sweep=$1
shift
if [ ! -f "${sweep}" ]; then
    echo "$0: no sweep at ${sweep}; there are: $(echo conf/sweeps/*)" >&2
    exit 2
fi

# value_of --option DEFAULT OPTIONS...: what run.sh will take, the last one given.
value_of() {
    local option=$1 value=$2
    shift 2
    while [ $# -gt 1 ]; do
        [ "$1" != "${option}" ] || value=$2
        shift 2
    done
    echo "${value}"
}

# compare NAME: adds a system to those that are compared, once.
compare() {
    [[ " ${systems[*]} " == *" $1 "* ]] || systems+=("$1")
}

expdir=$(value_of --expdir exp "$@")
results=${expdir}/sweeps/$(basename "${sweep%.*}")
own=(--train_full false --train_kd_logits_only false --cross_experts false --skip_done true)
declare -A stages=([mono]=5 [multi]=6 [mole]=7 [kd]=8) configs=([mono]=expert [kd]=distill)

systems=(multi) baselines=(multi)
while read -r line; do
    read -r system tag options <<<"${line%%#*}"
    [ -n "${system}" ] || continue
    base=${system%%@*}
    if [ -z "${tag}" ] && [ -f "${expdir}/${base}/system.json" ]; then
        compare "${base}"
        compare "${system}"
        baselines+=("${base}")
        continue
    fi
    stage=${stages[${system}]:-}
    if [ -z "${stage}" ] || [ -z "${tag}" ]; then
        echo "$0: lines of ${sweep} must be SYSTEM TAG OPTIONS, where SYSTEM is one of" \
            "${!stages[*]}, or one system of ${expdir}, but got: ${line}" >&2
        exit 2
    fi
    experts=mono
    [[ " ${systems[*]} " != *" mono_${tag} "* ]] || experts=mono_${tag}
    args=--${configs[${system}]:-${system}}_args
    ./run.sh "$@" "${own[@]}" --stage "${stage}" --stop_stage "${stage}" --tag "${tag}" \
        --experts "${experts}" "${args}" "$(value_of "${args}" "" "$@") ${options}" </dev/null
    compare "${system}"
    compare "${system}_${tag}"
    baselines+=("${system}")
    [ "${system}" != multi ] || baselines+=("multi_${tag}")
done <"${sweep}"

./run.sh "$@" "${own[@]}" --stage 9 --stop_stage 10 --systems "${systems[*]}" \
    --baseline "$(printf '%s\n' "${baselines[@]}" | awk '!seen[$0]++' | xargs)" \
    --test_sets "${sets:-$(value_of --valid_set dev "$@")}" --results_dir "${results}"
. ./path.sh
"${python}" -m espnet_lora_experts.bin.sweeps "${sweep}" --expdir "${expdir}" | tee "${results}/TABLE.md"
