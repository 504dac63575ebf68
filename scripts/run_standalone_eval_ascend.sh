#!/bin/sh
# Linear evaluation on one Ascend device.
. "$(dirname -- "$0")/lib/common.sh"
ARGUMENTS="[cifar10] [DEVICE_ID] [SIMCLR_MODEL_PATH] [TRAIN_DATASET_PATH]
           [EVAL_DATASET_PATH]"
NOTES="Further flags go to linear_eval.py. $IN_BACKGROUND"

[ $# -ge 5 ] || usage
dataset=$1 device=$2
shift 2
eval_standalone Ascend "$device" "$dataset" "$@"
