# shellcheck shell=bash
# shellcheck disable=SC2154  # the script that sources this sets help_message
# Sourced after a script set its variables: "--name value" on the command line changes ${name}.
# Only variables that exist may be set, so that a misspelt option is an error. One that was true or
# false stays one of them, and a number a number: scripts run the former and calculate with the latter.

while [ $# -gt 0 ]; do
    case "$1" in
        -h | --help)
            echo "${help_message}"
            exit 0
            ;;
        --*)
            _name=${1#--}
            _name=${_name//-/_}
            if ! [[ ${_name} =~ ^[a-z][a-z0-9_]*$ ]] || [ -z "${!_name+x}" ]; then
                echo "$0: unknown option $1; $0 --help lists them" >&2
                exit 2
            fi
            if [ $# -lt 2 ]; then
                echo "$0: option $1 must have a value" >&2
                exit 2
            fi
            case "${!_name}" in
                true | false) _kind='^(true|false)$' _wanted="true or false" ;;
                '' | *[!0-9.]*) _kind='' _wanted='' ;;
                *) _kind='^-?[0-9]+(\.[0-9]+)?$' _wanted="a number" ;;
            esac
            if [[ ! $2 =~ ${_kind} ]]; then
                echo "$0: option $1 must be ${_wanted}, but got '$2'" >&2
                exit 2
            fi
            printf -v "${_name}" '%s' "$2"
            shift 2
            ;;
        *)
            echo "$0: options must be --name value, but got '$1'; $0 --help lists them" >&2
            exit 2
            ;;
    esac
done
