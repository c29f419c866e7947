#!/usr/bin/env bash
# Trains variants of one system after a finished run, and compares them on the validation set.
#
#   ./sweep.sh conf/sweeps/merged_layers.txt [options of run.sh]
#
# A line of the file is SYSTEM TAG OPTIONS: the system (multi, mole or kd) is trained with these
# options of ESPnet's as exp/SYSTEM_TAG. Experts and pooled LoRA are those of the run before. What
# is finished is left as it is, so an interrupted sweep continues when it is started again.
# The results are exp/sweeps/NAME/{RESULTS.md,results.json}.
set -euo pipefail

if [ $# = 0 ] || [ "$1" = -h ] || [ "$1" = --help ]; then
    sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p}' "$0"
    exit 0
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

results=$(value_of --expdir exp "$@")/sweeps/$(basename "${sweep%.*}")
own=(--train_full false --train_kd_logits_only false --cross_experts false --skip_done true)
declare -A stages=([multi]=6 [mole]=7 [kd]=8) configs=([kd]=distill)

systems=(multi)
while read -r system tag options; do
    case ${system} in
        "" | \#*) continue ;;
    esac
    stage=${stages[${system}]:-}
    if [ -z "${stage}" ] || [ -z "${tag}" ]; then
        echo "$0: lines of ${sweep} must be SYSTEM TAG OPTIONS, where SYSTEM is one of" \
            "${!stages[*]}, but got: ${system} ${tag} ${options}" >&2
        exit 2
    fi
    ./run.sh "$@" "${own[@]}" --stage "${stage}" --stop_stage "${stage}" --tag "${tag}" \
        "--${configs[${system}]:-${system}}_args" "${options}" </dev/null
    [[ " ${systems[*]} " == *" ${system} "* ]] || systems+=("${system}")
    systems+=("${system}_${tag}")
done <"${sweep}"

./run.sh "$@" "${own[@]}" --stage 9 --stop_stage 10 --systems "${systems[*]}" \
    --test_sets "$(value_of --valid_set dev "$@")" --results_dir "${results}"
