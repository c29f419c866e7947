# shellcheck shell=bash
# Sourced by run.sh of recipes for corpora.
#
# corpus_options "commonvoice cv_version" "$@": of the options --name value, those named become
# variables that db.sh knows (COMMONVOICE, CV_VERSION); all others stay in the array ${rest}. A folder
# counts from where run.sh was called. With --quick true, ${rest} begins with a tiny backbone, one job for
# all experts and few utterances, unless they are given. --help tells the recipe's own options first.

corpus_options() {
    local names=" $1 " name value
    shift
    rest=()
    while [ $# -gt 0 ]; do
        name=${1#--}
        name=${name//-/_}
        if [[ $1 == --* && ${names} == *" ${name} "* ]]; then
            if [ $# -lt 2 ]; then
                echo "$0: option $1 must have a value" >&2
                exit 2
            fi
            value=$2
            [ ! -d "${value}" ] || value=$(cd "${value}" && pwd)
            export "${name^^}=${value}"
            shift 2
        else
            rest+=("$1")
            shift
        fi
    done
    if [[ " ${rest[*]} " == *" --quick true "* ]]; then
        rest=(--backbone openai/whisper-tiny --joint_experts true
            --local_data_opts "--max_train 40 --max_dev 8 --max_test 6" "${rest[@]}")
    fi
    case " ${rest[*]} " in
        *" --help "* | *" -h "*)
            sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p}' "$0"
            echo
            ;;
    esac
}
