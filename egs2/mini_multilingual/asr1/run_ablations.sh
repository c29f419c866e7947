#!/usr/bin/env bash
# shellcheck disable=SC2154  # path.sh and db.sh set what is not set here
# Sweeps and ablations at the demo's size, es fr ro ru, on all their validation clips: trains what
# is not there yet, and prints a table for each sweep (exp/sweeps/TABLES.md).
#
#   ./run_ablations.sh                               all of conf/sweeps: hours on two cores
#   ./run_ablations.sh --sweeps "top_k two_pass"     some of them, by their file's name
#   ./run_ablations.sh --tables true                 only the tables of what has been run
#   ./run_ablations.sh [...] [options of run.sh]     at another size or place, for example
#                                                    --langs "cs nl" --expdir exp_cs_nl --dumpdir dump_cs_nl
#
# After local/demo.sh its systems are taken; else they are trained first. What is finished, with the
# same options and inputs, is left as it is: after an interruption, start the same command again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

help_message=$(sed -n '3,/^set/{/^set/!s/^# \{0,1\}//p}' "$0")
sweeps=$(basename -s .txt conf/sweeps/*.txt | xargs)
tables=false
langs="es fr ro ru"
expdir=exp
dumpdir=dump
download_dir=""
options=(
    --local_data_opts "--max_train 240 --max_dev 24 --max_test 40"
    --train_args "--max_epoch 3" --mole_args "--max_epoch 2"
    --train_full false --train_kd_logits_only false
)
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help) echo "${help_message}" && exit 0 ;;
        --sweeps) sweeps=$2 ;;
        --tables) tables=$2 ;;
        --langs | --expdir | --dumpdir | --download_dir) declare "${1#--}=$2" ;;&
        --*) options+=("$1" "$2") ;;
        *) echo "$0: options must be --name value, but got $1; see --help" >&2 && exit 2 ;;
    esac
    shift 2
done
files=()
for name in ${sweeps}; do
    files+=("conf/sweeps/${name}.txt")
    if [ ! -f "${files[-1]}" ]; then
        echo "$0: no sweep ${name}; there are: $(basename -s .txt conf/sweeps/*.txt | xargs)" >&2
        exit 2
    fi
done
. ./path.sh
. ./db.sh

if ! ${tables}; then
    for system in mono multi mole kd; do
        if [ ! -f "${expdir}/${system}/system.json" ]; then
            ./run.sh "${options[@]}" --stop_stage 8 --skip_done true
            break
        fi
    done
    whole=${dumpdir}/raw/dev_whole
    if [ ! -f "${whole}/text" ]; then
        # The same split without a limit: more validation clips make narrower intervals.
        scratch=$(mktemp -d)
        trap 'rm -rf "${scratch}"' EXIT
        local/data.sh --langs "${langs}" --data_dir "${scratch}" --max_train 1 --max_test 1 \
            --download_dir "${download_dir:-${MINI_MULTILINGUAL}}"
        "${python}" -m espnet_lora_experts.bin.format_data --in_dirs "${scratch}/dev" \
            --out_dirs "${whole}" --langs "${langs}"
    fi
    ./sweep.sh --on dev_whole "${files[@]}" "${options[@]}"
fi
mkdir -p "${expdir}/sweeps"
"${python}" -m espnet_lora_experts.bin.sweeps "${files[@]}" --expdir "${expdir}" |
    tee "${expdir}/sweeps/TABLES.md"
