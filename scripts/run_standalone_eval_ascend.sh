#!/bin/sh
# Linear evaluation on one Ascend device.
# shellcheck source=/dev/null
. "$(dirname -- "$0")/common.sh"

usage() {
    echo "Usage: sh run_standalone_eval_ascend.sh [cifar10] [DEVICE_ID] [SIMCLR_MODEL_PATH] [TRAIN_DATASET_PATH]
           [EVAL_DATASET_PATH] [--flag value ...]
Data sets: $DATA_SETS.
Further flags go to linear_eval.py. FOREGROUND=1 waits for the end and passes the exit status on." >&2
    exit 2
}

[ $# -ge 5 ] || usage
dataset=$1 device=$2
shift 2
eval_standalone Ascend "$device" "$dataset" "$@"
