#!/usr/bin/env bash
# shellcheck disable=SC2154  # path.sh sets python
# Trains variants of systems after a finished run, and compares them on the validation set.
#
#   ./sweep.sh [--on SETS] FILE... [options of run.sh: the finished run's]
#   ./sweep.sh conf/sweeps/merged_layers.txt conf/sweeps/router.txt --langs "es fr"
#
# A line of a file is SYSTEM TAG OPTIONS: the system (mono, multi, mole or kd) is trained with
# these options of ESPnet's as exp/SYSTEM_TAG. mole and kd start from the experts of their own tag
# where a line before trains these, else from those of the run, exp/mono. A line of one word is
# compared only: a system that is there, or another way to decode one (mole@top2, two_pass@kd,
# kd@30s). Text after a # says what the line is; the first line that is all comment titles the table.
# The variants of all files train side by side as --nj_train says. What is finished is left as it
# is, so interrupted sweeps continue when they are started again. The results of each are
# exp/sweeps/NAME/{RESULTS.md,results.json,TABLE.md}; the last is printed.
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
files=()
while [ $# -gt 0 ] && [[ $1 != --* ]]; do
    files+=("$1")
    shift
done
for file in "${files[@]:-}"; do
    if [ ! -f "${file}" ]; then
        echo "$0: no sweep at ${file:-${1:-}}; there are: $(echo conf/sweeps/*)" >&2
        exit 2
    fi
done

own=(--train_full false --train_kd_logits_only false --cross_experts false --skip_done true)
given=("$@")
declare -A stages=([mono]=5 [multi]=6 [mole]=7 [kd]=8) configs=([mono]=expert [kd]=distill)

# value_of --option DEFAULT: what run.sh will take, the last one given.
value_of() {
    local option=$1 value=$2
    set -- "${given[@]}"
    while [ $# -gt 1 ]; do
        [ "$1" != "${option}" ] || value=$2
        shift 2
    done
    echo "${value}"
}

log() { echo "$(date '+%H:%M:%S') (${0##*/}) $*"; }

# compare NAME: adds a system to those that are compared, once.
compare() {
    [[ " ${systems[*]} " == *" $1 "* ]] || systems+=("$1")
}

# read_sweep FILE: the systems that it compares, with which baselines, and the variants that it trains.
read_sweep() {
    local line system tag options base experts
    systems=(multi) baselines=(multi) variants=()
    while read -r line || [ -n "${line}" ]; do
        read -r system tag options <<<"${line%%#*}"
        [ -n "${system}" ] || continue
        base=${system%%@*}
        if [ -z "${tag}" ] && [ -f "${expdir}/${base}/system.json" ]; then
            compare "${base}"
            compare "${system}"
            baselines+=("${base}")
            continue
        fi
        if [ -z "${stages[${system}]:-}" ] || [ -z "${tag}" ]; then
            echo "$0: lines of $1 must be SYSTEM TAG OPTIONS, where SYSTEM is one of" \
                "${!stages[*]}, or one system of ${expdir}, but got: ${line}" >&2
            exit 2
        fi
        experts=mono
        [[ " ${systems[*]} " != *" mono_${tag} "* ]] || experts=mono_${tag}
        variants+=("${system} ${tag} ${experts} ${options}")
        compare "${system}"
        compare "${system}_${tag}"
        baselines+=("${system}")
        [ "${system}" != multi ] || baselines+=("multi_${tag}")
    done <"$1"
}

# train SYSTEM TAG EXPERTS OPTIONS: trains a variant.
train() {
    local args=--${configs[$1]:-$1}_args
    ./run.sh "${given[@]}" "${own[@]}" --stage "${stages[$1]}" --stop_stage "${stages[$1]}" --tag "$2" \
        --experts "$3" "${args}" "$(value_of "${args}" "") $4"
}

expdir=$(value_of --expdir exp)
declare -A told=()
first=() later=() # those that wait for experts of their own tag
for file in "${files[@]}"; do
    read_sweep "${file}"
    for variant in "${variants[@]}"; do
        read -r system tag experts _ <<<"${variant}"
        name=${system}_${tag}
        if [ "${told[${name}]:-${variant}}" != "${variant}" ]; then
            echo "$0: ${system} ${tag} must mean one variant, but ${file} has it with other options or experts than" \
                "a line before; give one of them another tag" >&2
            exit 2
        fi
        [ -z "${told[${name}]:-}" ] || continue
        told[${name}]=${variant}
        [ "${experts}" = mono ] && first+=("${variant}") || later+=("${variant}")
    done
done

. ./path.sh
# shellcheck disable=SC2034  # jobs.sh asks for them
nj_train=$(value_of --nj_train 0) ngpu=$(value_of --ngpu 0) torchrun=$(value_of --torchrun "")
. ./jobs.sh
side_by_side ${#told[@]}
for variant in "${first[@]}" "${later[@]}"; do
    read -r system tag experts options <<<"${variant}"
    [ "${experts}" = mono ] || finish "${experts}"
    beside "${system}_${tag}" train "${system}" "${tag}" "${experts}" "${options}"
done
finish "${!started[@]}"
trap - EXIT INT TERM

for file in "${files[@]}"; do
    read_sweep "${file}"
    results=${expdir}/sweeps/$(basename "${file%.*}")
    ./run.sh "${given[@]}" "${own[@]}" --stage 9 --stop_stage 10 --systems "${systems[*]}" \
        --baseline "$(printf '%s\n' "${baselines[@]}" | awk '!seen[$0]++' | xargs)" \
        --test_sets "${sets:-$(value_of --valid_set dev)}" --results_dir "${results}" </dev/null
    "${python}" -m espnet_lora_experts.bin.sweeps "${file}" --expdir "${expdir}" | tee "${results}/TABLE.md"
done
