# shellcheck shell=bash
# Sourced by the recipes: how jobs are run. The interface is that of Kaldi's run.pl:
#   ${train_cmd} [--gpu N] [JOB=1:N] LOG COMMAND...
#
# local   run_job.sh runs jobs on this machine, as many as there are (default)
# others  run.pl, slurm.pl, queue.pl ... of an ESPnet or Kaldi checkout: put them in PATH and
#         set cmd_backend, for example  cmd_backend=slurm ./run.sh

case "${cmd_backend:-local}" in
    local)
        export train_cmd="./run_job.sh"
        export decode_cmd="./run_job.sh"
        ;;
    run | slurm | queue | ssh | pbs)
        export train_cmd="${cmd_backend}.pl"
        export decode_cmd="${cmd_backend}.pl"
        ;;
    *)
        echo "cmd.sh: cmd_backend must be local, run, slurm, queue, ssh or pbs, but got '${cmd_backend}'" >&2
        return 1
        ;;
esac
