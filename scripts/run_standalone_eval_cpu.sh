#!/bin/sh
# Linear evaluation on the CPU.
# shellcheck source=/dev/null
. "$(dirname -- "$0")/common.sh"

usage() {
    echo "Usage: sh run_standalone_eval_cpu.sh [cifar10] [SIMCLR_MODEL_PATH] [TRAIN_DATASET_PATH] [EVAL_DATASET_PATH] [--flag value ...]
Data sets: $DATA_SETS.
Further flags go to linear_eval.py. FOREGROUND=1 waits for the end and passes the exit status on." >&2
    exit 2
}

[ $# -ge 4 ] || usage
eval_standalone CPU 0 "$@"
