#!/usr/bin/env bats
# Names and options of strangers in the recipes' shell scripts: bats tests/egs2/hostile.bats
# shellcheck disable=SC2016  # what stands in single quotes must not be expanded

setup() {
    cp -rL "${BATS_TEST_DIRNAME}/../../egs2/TEMPLATE/asr1" "${BATS_TEST_TMPDIR}/re cipe"
    cd "${BATS_TEST_TMPDIR}/re cipe" || return
    mkdir -p local
    printf '#!/usr/bin/env bash\nprintf "<%%s>\\n" "$@"\n' >local/data.sh
    chmod +x local/data.sh
    export python=/bin/true
}

driver() { run ./lora_experts.sh --stop_stage 1 "$@"; }

refused() {
    [ "${status}" -eq 2 ]
    [[ ${output} == *"$1"* ]]
    untouched
}

untouched() {
    [ -z "$(find "${BATS_TEST_TMPDIR}" -name 'pwned*')" ]
}

hostile=('../x' '/etc' '$(touch pwned)' '`touch${IFS}pwned`' 'a;touch' 'a|b' 'a&b' "a'b" 'a"b' 'a,b' '*' '?' '[a]' '-rf' '..')

@test "names that are none are refused, before anything runs" {
    for option in langs train_set valid_set test_sets systems padded baseline experts export_system add_lang; do
        for name in "${hostile[@]}"; do
            driver "--${option}" "${name}"
            refused "names in --${option} must be"
        done
    done
}

@test "a wildcard in a name does not become the files that are there" {
    touch es.wav
    driver --langs 'e*'
    refused "got "
}

@test "folders take no spaces, quotes or commands" {
    for option in dumpdir expdir data_dir backbone tag; do
        for path in 'a b' '$(touch pwned)' '`touch pwned`' "a'b" 'a"b' 'a,b' 'a;b' 'exp*' $'a\nb'; do
            driver "--${option}" "${path}"
            refused "--${option} must have no spaces"
        done
    done
}

@test "what is true or false is not run" {
    for option in quick skip_done joint_experts train_full cross_experts; do
        for value in 'touch pwned' '$(touch pwned)' yes ''; do
            driver "--${option}" "${value}"
            refused "option --${option} must be true or false"
        done
    done
}

@test "what is a number is not calculated" {
    for option in stage stop_stage ngpu inference_nj max_wav_duration; do
        for value in 'a[$(touch pwned)]' 'x' '' '1;touch pwned' '1 2'; do
            driver "--${option}" "${value}"
            refused "option --${option} must be a number"
        done
    done
}

@test "options that do not exist set nothing" {
    for option in '--PATH' '--a b' '--x[$(touch pwned)]' '--langs$(touch pwned)' '--_name'; do
        driver "${option}" es
        [ "${status}" -ne 0 ]
        untouched
    done
}

@test "a folder of downloads may have any name, and is one word" {
    for folder in 'my corpora' '$(touch pwned)' "it's" '"x"' '*' '`touch pwned`'; do
        driver --langs es --download_dir "${folder}"
        [ "${status}" -eq 0 ]
        [[ ${output} == *"<${folder}>"* ]]
        untouched
    done
}

@test "good names pass" {
    driver --langs "es yue" --train_set my_train --test_sets "test-clean test.other" --systems "mole@top2 kd@30s" \
        --baseline kd_a+b --expdir /tmp/e-x.p --backbone openai/whisper-tiny
    [ "${status}" -eq 0 ]
    [[ ${output} == *"<es yue>"* ]]
}

@test "run_job.sh passes words as they are" {
    words=('a b' '$(touch pwned)' '`touch pwned`' "it's" '"x"' '*' 'a;b' '')
    run ./run_job.sh "log dir/x.log" printf '<%s>\n' "${words[@]}"
    [ "${status}" -eq 0 ]
    for word in "${words[@]}"; do
        grep -qxF "<${word}>" "log dir/x.log"
    done
    untouched
}
