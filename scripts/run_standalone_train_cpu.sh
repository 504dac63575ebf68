#!/bin/sh
# Pretrain on the CPU.
. "$(dirname -- "$0")/lib/common.sh"
ARGUMENTS="[cifar10] [TRAIN_DATASET_PATH]"
NOTES="Further flags go to train.py. $IN_BACKGROUND"

[ $# -ge 2 ] || usage
train_standalone CPU 0 "$@"
