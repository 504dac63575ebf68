#!/bin/sh
# Pretrain on several devices, without a rank table: MindSpore's own launcher, msrun, starts the processes.
. "$(dirname -- "$0")/lib/common.sh"
. "$(dirname -- "$0")/lib/distributed.sh"
target=Ascend address=127.0.0.1 port=8118 nodes=1 node=0 # where the environment says nothing
ARGUMENTS="[DEVICE_NUM] [cifar10] [TRAIN_DATASET_PATH]"
NOTES="DEVICE_NUM counts the devices of all machines. Further flags go to train.py. Environment, with defaults:
  DEVICE_TARGET=$target     Ascend, GPU or CPU
  MASTER_ADDR=$address    address of the machine with NODE_RANK 0
  MASTER_PORT=$port         a free port there
  NODE_NUM=$nodes NODE_RANK=$node   number of machines, and which one this is; call the launcher on each
$IN_FRONT"

log_of() { # RANK, or scheduler, or msrun
    case $1 in
        scheduler | msrun) echo "$(pwd)/train_msrun/$1.log" ;;
        *) echo "$(pwd)/train_msrun/worker_$1.log" ;;
    esac
}

# Fails with a line that says why the scheduler could not listen at ADDRESS PORT of machine 0, or not be found there.
CAN_MEET='
import errno, socket, sys
address, port, node = sys.argv[1:]
try:
    family, kind, _, _, place = socket.getaddrinfo(address, int(port), type=socket.SOCK_STREAM)[0]
    if node != "0":
        sys.exit()
    with socket.socket(family, kind) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(place)
except (OSError, UnicodeError) as error:  # the latter where it cannot be a name
    if getattr(error, "errno", None) == errno.EADDRINUSE:
        sys.exit(f"MASTER_PORT: got {port}, which another process uses; wait for its end, or take a free port")
    reason = getattr(error, "strerror", "no name")
    sys.exit(f"MASTER_ADDR: got {address} ({reason}), takes an address of the machine with NODE_RANK 0; here "
             f"NODE_RANK is {node}")
'

[ $# -ge 3 ] || usage
device_num=$1 nodes=${NODE_NUM:-$nodes} node=${NODE_RANK:-$node}
target=${DEVICE_TARGET:-$target} address=${MASTER_ADDR:-$address} port=${MASTER_PORT:-$port}
check_number DEVICE_NUM "$device_num" 1 99999
take_data "$2" "$3"
shift 3
check_flags "$@"
case $target in
    Ascend | GPU | CPU) ;;
    *) fail "DEVICE_TARGET: got '$target', takes Ascend, GPU or CPU" ;;
esac
check_number NODE_NUM "$nodes" 1 99999
check_number NODE_RANK "$node" 0 $((nodes - 1))
check_number MASTER_PORT "$port" 1024 65535
local_num=$((device_num / nodes))
[ $((local_num * nodes)) -eq "$device_num" ] ||
    fail "DEVICE_NUM: got $device_num for $nodes machines (NODE_NUM), takes a multiple of $nodes"
case $nodes.$address in
    1.*) ;;
    *.localhost | *.127.* | *.::1) fail "MASTER_ADDR: got $address, takes an address that all $nodes machines reach" ;;
esac
python=$(chosen_python) || exit 2
reason=$("$python" -c "$CAN_MEET" "$address" "$port" "$node" 2>&1) || fail "$reason"

for log in train_msrun/*.log; do
    [ ! -e "$log" ] || new_log "$log"
done
new_log "$(log_of msrun)"
prepare_ranks
tune "$target" "$local_num"
unset RANK_TABLE_FILE # of another run: it would win over msrun
# msrun runs the first `python` of the PATH: rank.sh under that name, with the real python as its command.
bin=${EVENTS%/*}
cp "$ROOT/scripts/lib/rank.sh" "$bin/python" && chmod +x "$bin/python"
PATH=$bin:$PATH setsid "$python" -m mindspore.parallel.cluster.run --worker_num "$device_num" \
    --local_worker_num "$local_num" --master_addr "$address" --master_port "$port" --node_rank "$node" \
    --log_dir "$(pwd)/train_msrun" --join True --cluster_time_out 300 --tail_worker_log 0 python \
    "$python" "$ROOT/train.py" --device_target "$target" --run_distribute True --device_num "$device_num" \
    --dataset_name "$dataset" --train_dataset_path "$train" "$@" >>"$(log_of msrun)" 2>&1 </dev/null &
supervisor=$!
watch_ranks "$local_num" "$local_num of $device_num ranks"
