# shellcheck shell=bash
# What each of several jobs gets of this machine; jobs.sh and run_job.sh source this.

# share_threads N: each of N jobs gets its part of the threads, rounded up.
share_threads() {
    [ -z "${OMP_NUM_THREADS:-}" ] || export OMP_NUM_THREADS=$(((OMP_NUM_THREADS + $1 - 1) / $1))
}

# gpu_groups N: the GPUs that there are, or that CUDA_VISIBLE_DEVICES names, N of them a line: 0,1
gpu_groups() {
    if [ -n "${CUDA_VISIBLE_DEVICES+set}" ]; then
        tr , '\n' <<<"${CUDA_VISIBLE_DEVICES}"
    else # by their ids, which need no order; nothing where none can be listed
        nvidia-smi --query-gpu=uuid --format=csv,noheader 2>/dev/null || true
    fi | awk -v n="$1" 'NF { line = line sep $1; sep = "," } NF && ++k % n == 0 { print line; line = sep = "" }'
}
