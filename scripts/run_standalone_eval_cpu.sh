#!/bin/sh
# Linear evaluation on the CPU.
. "$(dirname -- "$0")/lib/common.sh"
ARGUMENTS="[cifar10] [SIMCLR_MODEL_PATH] [TRAIN_DATASET_PATH] [EVAL_DATASET_PATH]"
NOTES="Further flags go to linear_eval.py. $IN_BACKGROUND"

[ $# -ge 4 ] || usage
eval_standalone CPU 0 "$@"
