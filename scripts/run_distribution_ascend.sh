#!/bin/sh
# The same as run_distribution_train_ascend.sh, under its other name.
exec sh "$(dirname -- "$0")/run_distribution_train_ascend.sh" "$@"
