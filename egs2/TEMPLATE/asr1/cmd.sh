# shellcheck shell=bash
# Sourced by the recipes: how jobs are run. The interface is that of Kaldi's run.pl:
#   ${train_cmd} [--gpu N] [JOB=1:N] LOG COMMAND...
#
# local   run_job.sh runs jobs on this machine, as many as there are (default)
# others  slurm.pl, queue.pl (sge), pbs.pl, ssh.pl, run.pl of ESPnet's tree: set ESPNET_ROOT, or put
#         them in PATH; for example  ESPNET_ROOT=~/espnet cmd_backend=slurm ./run.sh
#
# Partitions, queues and what a job may ask for are in conf/slurm.conf and conf/queue.conf, in
# ESPnet's form: change them to your cluster's. Memory or cores for every job: add --mem 16G
# --num_threads 4 to the commands below.

# shellcheck disable=SC2154  # whoever runs the recipe may set cmd_backend
cluster() {
    local script=$1.pl conf=conf/$1.conf
    [ -z "${ESPNET_ROOT:-}" ] || export PATH=${PATH}:${ESPNET_ROOT}/egs2/TEMPLATE/asr1/utils
    if ! command -v "${script}" >/dev/null; then
        echo "cmd.sh: cmd_backend=${cmd_backend} must find ESPnet's ${script}, but it is neither in PATH nor in" \
            "ESPNET_ROOT=${ESPNET_ROOT:-}; local/espnet.sh fetches ESPnet's tree" >&2
        return 1
    fi
    [ -f "${conf}" ] || conf=${MAIN_ROOT:-.}/${conf} # a recipe with a conf/ of its own
    [ ! -f "${conf}" ] || script+=" --config ${conf}"
    export train_cmd=${script} decode_cmd=${script}
}

case "${cmd_backend:-local}" in
    local) export train_cmd=./run_job.sh decode_cmd=./run_job.sh ;;
    sge) cluster queue ;;
    slurm | queue | pbs | ssh | run) cluster "${cmd_backend}" ;;
    *)
        echo "cmd.sh: cmd_backend must be local, slurm, sge, pbs, ssh or run, but got '${cmd_backend}'" >&2
        return 1
        ;;
esac
