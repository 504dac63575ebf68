#!/bin/sh
# Pretrain on the CPU.
# shellcheck source=/dev/null
. "$(dirname -- "$0")/common.sh"

usage() {
    echo "Usage: sh run_standalone_train_cpu.sh [cifar10] [TRAIN_DATASET_PATH] [--flag value ...]
Data sets: $DATA_SETS.
Further flags go to train.py. FOREGROUND=1 waits for the end and passes the exit status on." >&2
    exit 2
}

[ $# -ge 2 ] || usage
train_standalone CPU 0 "$@"
