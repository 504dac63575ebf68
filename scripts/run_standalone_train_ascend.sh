#!/bin/sh
# Pretrain on one Ascend device.
# shellcheck source=/dev/null
. "$(dirname -- "$0")/common.sh"

usage() {
    echo "Usage: sh run_standalone_train_ascend.sh [cifar10] [TRAIN_DATASET_PATH] [DEVICE_ID] [--flag value ...]
Data sets: $DATA_SETS.
Further flags go to train.py. FOREGROUND=1 waits for the end and passes the exit status on." >&2
    exit 2
}

[ $# -ge 3 ] || usage
dataset=$1 train=$2 device=$3
shift 3
train_standalone Ascend "$device" "$dataset" "$train" "$@"
