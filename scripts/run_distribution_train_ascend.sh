#!/bin/sh
# Pretrain on several Ascend devices: one process for each device that the rank table has for this server.
# shellcheck source=/dev/null
. "$(dirname -- "$0")/common.sh"
# shellcheck source=/dev/null
. "$(dirname -- "$0")/distributed.sh"

usage() {
    echo "Usage: sh run_distribution_train_ascend.sh [RANK_TABLE_FILE] [cifar10] [TRAIN_DATASET_PATH] [--flag value ...]
Data sets: $DATA_SETS.
Further flags go to train.py. With several servers in the table call it on each of them; SERVER_ID=... names this one.
It stays in front until all ranks have ended, and ends them all when one fails." >&2
    exit 2
}

log_of() { # RANK
    echo "$(pwd)/train_parallel$1/log"
}

[ $# -ge 3 ] || usage
table=$(absolute "$1") dataset=$2
check_dataset "$2"
check_folder TRAIN_DATASET_PATH "$3" "$2"
data=$(absolute "$3")
shift 3
check_flags "$@"
python=$(chosen_python) || exit 2
devices=$("$python" "$ROOT/scripts/rank_table.py" ranks "$table" --server_id "${SERVER_ID:-}") || exit 2

while read -r rank device size; do
    keep_log "$(log_of "$rank")"
done <<END
$devices
END
prepare_ranks
count=0 ranks=''
while read -r rank device size; do
    # In a subshell, since bash reports on children of its own that are killed.
    (RANK_ID=$rank RANK_SIZE=$size DEVICE_ID=$device RANK_TABLE_FILE=$table setsid sh "$ROOT/scripts/rank.sh" \
        "$python" "$ROOT/train.py" --device_target Ascend --run_distribute True --device_num "$size" \
        --dataset_name "$dataset" --train_dataset_path "$data" "$@" >>"$(log_of "$rank")" 2>&1 </dev/null &)
    count=$((count + 1)) ranks="$ranks $rank" world=$size
done <<END
$devices
END
echo "started here: rank$ranks of $world; logs: $(log_of RANK), and rank 0's tells the progress"
watch_ranks "$count"
echo "all ranks started here have ended well"
