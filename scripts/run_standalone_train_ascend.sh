#!/bin/sh
# Pretrain on one Ascend device.
. "$(dirname -- "$0")/lib/common.sh"
ARGUMENTS="[cifar10] [TRAIN_DATASET_PATH] [DEVICE_ID]"
NOTES="Further flags go to train.py. $IN_BACKGROUND"

[ $# -ge 3 ] || usage
dataset=$1 train=$2 device=$3
shift 3
train_standalone Ascend "$device" "$dataset" "$train" "$@"
