# shellcheck shell=bash
# shellcheck disable=SC2154  # lora_experts.sh sources this, for --add_lang "be"
# Adds languages to a finished run, whose experts and systems are only read.
#
#   exp/add_be/be   the new language alone: an ordinary run (data/add_be, dump/add_be/be)
#   exp/add_be      old and new together (dump/add_be): MoLE and student, extended; RESULTS.md

new=${add_lang// /_}
joint=add_${new} # under expdir and dumpdir
facts=$("${python}" -m espnet_lora_experts.bin.add_lang facts --expdir "${expdir}" --langs "${add_lang}" \
    --share "${add_share}")
all=$(sed -n 's/^langs //p' <<<"${facts}")
declare -A steps_of=()
while read -r name value; do
    steps_of[${name}]=${value%% *}
done <<<"${facts}"

# again OPTIONS...: the stages in other folders, with the options of this run but for these.
again() {
    ./lora_experts.sh "${options[@]}" --add_lang "" --tag "" --experts mono --results_dir "" --results_md "" \
        --train_multi false --train_full false --train_kd_logits_only false --cross_experts false "$@"
}

# extending SYSTEM: a training's options to go on from a finished system for some steps (batches).
extending() {
    local steps=${steps_of[$1]:-1}
    echo "--model_conf extend=${expdir}/$1 --max_epoch 1 --num_iters_per_epoch ${steps}" \
        "--scheduler_conf warmup_steps=$(((steps + 4) / 5))"
}

# join OLD NEW OUT: the tables of two folders as one.
join() { "${python}" -m espnet_lora_experts.bin.add_lang join "$@"; }

mkdir -p "${expdir}/${joint}"/{mono,vanilla}
hashes=${expdir}/${joint}/before.sha256
find "${expdir}" -type f -regex "${expdir}/\(mono\|mole\|kd\).*\(\.safetensors\|adapter_config\.json\)" |
    sort | xargs -d '\n' sha256sum >"${hashes}"

if [ "${stage}" -le 6 ]; then
    log "${add_lang}: data, expert, transcripts"
    again --langs "${add_lang}" --data_dir "data/${joint}" --expdir "${expdir}/${joint}/${new}" \
        --dumpdir "${dumpdir}/${joint}/${new}" --stop_stage 10 --skip_stages "6 7 8" \
        --systems "vanilla mono" --baseline vanilla
    for set in ${train_set} ${valid_set} ${test_sets}; do
        join "${raw}/${set}" "${dumpdir}/${joint}/${new}/raw/${set}" "${dumpdir}/${joint}/raw/${set}"
    done
    for set in ${test_sets}; do # neither Whisper nor the old experts have changed
        for name in vanilla mono; do
            join "${expdir}/${name}/decode_aware/${set}" "${expdir}/${joint}/${new}/${name}/decode_aware/${set}" \
                "${expdir}/${joint}/${name}/decode_aware/${set}"
        done
    done
    cp "${expdir}/vanilla/system.json" "${expdir}/${joint}/vanilla/system.json"
    "${python}" -m espnet_lora_experts.bin.combine --inputs "${expdir}/mono ${expdir}/${joint}/${new}/mono" \
        --output "${expdir}/${joint}/mono"
    cat "${hashes}" "${expdir}/${joint}/${new}"/mono*/.done >"${expdir}/${joint}/mono/.done" # what stages 7 and 8 read
fi

if [ "${stop_stage}" -ge 7 ]; then
    systems="" skipped="5 6"
    [ -n "${steps_of[mole]:-}" ] && systems+=" mole" || skipped+=" 7"
    [ -n "${steps_of[kd]:-}" ] && systems+=" kd" || skipped+=" 8"
    log "${all}: extend${systems} in at most ${add_share} % of the steps they were trained for"
    again --langs "${all}" --expdir "${expdir}/${joint}" --dumpdir "${dumpdir}/${joint}" \
        --stage "$((stage > 6 ? stage : 4))" --stop_stage 9 --skip_stages "${skipped}" \
        --systems "${systems}" --mole_args "${mole_args} $(extending mole)" \
        --distill_args "${distill_args} $(extending kd)"
    "${python}" -m espnet_lora_experts.bin.score --expdir "${expdir}/${joint}" --before "${expdir}" \
        --data_root "${dumpdir}/${joint}/raw" --test_sets "${test_sets}" --systems "vanilla mono ${systems}" \
        --skip_missing true --baseline vanilla --output "${expdir}/${joint}" --score_case "${score_case}" \
        --score_punctuation "${score_punctuation}" --command "${command}" \
        --about "backbone=${backbone} text_policy=${text_policy}"
fi

sha256sum --check --quiet "${hashes}"
log "$(wc -l <"${hashes}") files of the old experts and systems are the same as before (sha256: ${hashes})"
