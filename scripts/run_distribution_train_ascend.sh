#!/bin/sh
# Pretrain on several Ascend devices: one process for each device that the rank table has for this server.
. "$(dirname -- "$0")/lib/common.sh"
. "$(dirname -- "$0")/lib/distributed.sh"
ARGUMENTS="[RANK_TABLE_FILE] [cifar10] [TRAIN_DATASET_PATH]"
NOTES="\
Further flags go to train.py. With several servers in the table call it on each of them; SERVER_ID=... names this one.
$IN_FRONT"

log_of() { # RANK
    echo "$(pwd)/train_parallel$1/log"
}

[ $# -ge 3 ] || usage
table=$(absolute "$1")
take_data "$2" "$3"
shift 3
check_flags "$@"
python=$(chosen_python) || exit 2
devices=$("$python" "$ROOT/scripts/rank_table.py" ranks "$table" --server_id "${SERVER_ID:-}") || exit 2

while read -r rank device size; do
    new_log "$(log_of "$rank")"
done <<END
$devices
END
prepare_ranks
count=0 ranks=''
while read -r rank device size; do
    # In a subshell, since bash reports on children of its own that are killed.
    (RANK_ID=$rank RANK_SIZE=$size DEVICE_ID=$device RANK_TABLE_FILE=$table setsid sh "$ROOT/scripts/lib/rank.sh" \
        "$python" "$ROOT/train.py" --device_target Ascend --run_distribute True --device_num "$size" \
        --dataset_name "$dataset" --train_dataset_path "$train" "$@" >>"$(log_of "$rank")" 2>&1 </dev/null &)
    count=$((count + 1)) ranks="$ranks $rank" world=$size
done <<END
$devices
END
watch_ranks "$count" "rank$ranks of $world"
