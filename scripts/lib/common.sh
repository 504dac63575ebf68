# What the launchers share; each sources it as its first step. Before `usage` can be called, a launcher
# sets ARGUMENTS, what it takes, and NOTES, the end of its usage.
# shellcheck shell=sh

DATA_SETS="cifar10 cifar100 stl10 imagefolder shapes" # those of src/dataset.py
ROOT=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)

# say TEXT: print it as one line, without what a terminal would obey.
say() {
    line=$(printf '%s' "$1" | tr '\n' '\177')
    printf '%s\n' "$line" | LC_ALL=C.UTF-8 grep -qx '[[:print:]]*' ||
        line=$(printf '%s' "$line" | LC_ALL=C tr -c ' -~' '?')
    printf '%s\n' "$line"
}

# fail MESSAGE [STATUS]: one line on standard error; status 2, or another.
fail() {
    say "$(basename -- "$0"): $1" >&2
    exit "${2:-2}"
}

# absolute PATH: the path as seen from the caller's folder.
absolute() {
    case $1 in
        /*) printf '%s\n' "$1" ;;
        *) printf '%s/%s\n' "$(pwd)" "$1" ;;
    esac
}

data_sets() { # cifar10, ... or shapes
    echo "$DATA_SETS" | sed 's/ /, /g; s/\(.*\),/\1 or/'
}

usage() {
    echo "Usage: sh $(basename -- "$0") $ARGUMENTS [--flag value ...]
Data sets: $(data_sets).
$NOTES" >&2
    exit 2
}

check_dataset() {
    for known in $DATA_SETS; do
        [ "$1" != "$known" ] || return 0
    done
    fail "data set: got '$1', takes $(data_sets)"
}

check_folder() { # NAME PATH [DATA_SET]; shapes is generated where it is missing
    [ -d "$2" ] || [ "${3:-}" = shapes ] || fail "$1: $2 is not a folder; name the one with the data files"
}

# take_data DATA_SET TRAIN_DATASET_PATH: check them, and set `dataset` and `train`.
take_data() {
    check_dataset "$1"
    check_folder TRAIN_DATASET_PATH "$2" "$1"
    dataset=$1 train=$(absolute "$2")
}

check_number() { # NAME VALUE LEAST MOST [WHAT IT TAKES]
    case $2 in
        '' | *[!0-9]* | 0?* | ??????*) ;;
        *) [ "$2" -lt "$3" ] || [ "$2" -gt "$4" ] || return 0 ;;
    esac
    fail "$1: got '$2', takes ${5:-a number from $3 to $4}"
}

check_flags() { # what follows the fixed arguments
    case ${1:---} in
        --*) ;;
        *) usage ;;
    esac
}

# What must stand in the environment before processes on the CPU start: large pages for their heaps, and where
# there are several, which would each take all cores, their share of threads.
# The rest src/device/environment.py sets itself. The user's own values win.
tune() { # DEVICE_TARGET [PROCESSES]
    [ "$1" = CPU ] || return 0
    export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"
    [ $# -eq 2 ] || return 0
    threads=$(($(nproc) / $2))
    export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$((threads > 1 ? threads : 1))}"
}

# chosen_python: print the place of the Python to run: PYTHON, or what the PATH has.
chosen_python() {
    command -v "${PYTHON:-python}" || command -v "${PYTHON:-python3}" ||
        fail "there is no ${PYTHON:-python} on the PATH; name one: PYTHON=/path/to/python sh $0"
}

# temporary_folder: make one, and print its name.
temporary_folder() {
    mktemp -d || fail "cannot make a temporary folder; name one that can be written: TMPDIR=/folder"
}

# new_log LOG: an empty one; what an earlier run wrote there, or goes on writing, becomes LOG.1, or LOG.2, ...
new_log() {
    if [ -e "$1" ]; then
        number=1
        while [ -e "$1.$number" ]; do number=$((number + 1)); done
        mv "$1" "$1.$number"
    fi
    # In a subshell, since dash ends with the `:` that cannot write.
    (mkdir -p "$(dirname -- "$1")" && : >"$1") 2>/dev/null ||
        fail "log: cannot write $1; call the launcher from a folder that can be written"
}

# launch LOG SCRIPT ARGUMENT...: run a script of the project with its output in LOG, in the caller's
# folder; in the background, or with FOREGROUND=1 in front, on the screen too and with its exit status.
launch() {
    case ${FOREGROUND:-0} in
        0 | 1) ;;
        *) fail "FOREGROUND: got '$FOREGROUND', takes 1 to wait for the end, or 0" ;;
    esac
    log=$(absolute "$1")
    script=$ROOT/$2
    shift 2
    python=$(chosen_python) || exit 2
    export PYTHONUNBUFFERED=1
    new_log "$log"
    say "log: $log"
    if [ "${FOREGROUND:-0}" = 1 ]; then
        folder=$(temporary_folder) || exit 2
        mkfifo "$folder/output"
        (trap '' HUP INT TERM && exec tee -a "$log" <"$folder/output") &
        exec >"$folder/output" 2>&1
        rm -r "$folder"
        exec "$python" "$script" "$@" # in the launcher's place, where signals reach it
    fi
    case " $* " in *" --quiet "*) START=5 ;; esac # it does not say when it has begun
    nohup "$python" "$script" "$@" >>"$log" 2>&1 </dev/null &
    echo "process id: $!"
    wait_for_start "$!" "$log"
}

START=60 # seconds, after which a process that says nothing counts as started
# wait_for_start PROCESS LOG: return when the process has begun its run, as its log says; if it ends before, tell why.
wait_for_start() {
    tick=$((START * 5))
    while [ "$tick" -gt 0 ] && ! grep -q '; run folder ' "$2"; do
        if ! kill -0 "$1" 2>/dev/null; then
            wait "$1" && return
            status=$?
            tail -n 5 "$2" >&2
            exit "$status"
        fi
        sleep 0.2
        tick=$((tick - 1))
    done
}

# The end of the NOTES of those that `launch`.
# shellcheck disable=SC2034  # they show it
IN_BACKGROUND="FOREGROUND=1 waits for the end and passes the exit status on."

# train_standalone DEVICE_TARGET DEVICE_ID DATA_SET TRAIN_DATASET_PATH [--flag value ...]
train_standalone() {
    check_number DEVICE_ID "$2" 0 99999 "a device number such as 0"
    take_data "$3" "$4"
    target=$1 device=$2
    shift 4
    check_flags "$@"
    tune "$target"
    launch log train.py --device_target "$target" --device_id "$device" --dataset_name "$dataset" \
        --train_dataset_path "$train" "$@"
}

# eval_standalone DEVICE_TARGET DEVICE_ID DATA_SET MODEL_PATH TRAIN_DATASET_PATH EVAL_DATASET_PATH [--flag value ...]
eval_standalone() {
    check_number DEVICE_ID "$2" 0 99999 "a device number such as 0"
    check_dataset "$3"
    [ -e "$4" ] || fail "SIMCLR_MODEL_PATH: there is no $4; name a checkpoint of train.py, or its folder"
    check_folder TRAIN_DATASET_PATH "$5" "$3"
    check_folder EVAL_DATASET_PATH "$6" "$3"
    target=$1 device=$2 dataset=$3 model=$(absolute "$4") train=$(absolute "$5") eval=$(absolute "$6")
    shift 6
    check_flags "$@"
    tune "$target"
    launch eval_log linear_eval.py --device_target "$target" --device_id "$device" --dataset_name "$dataset" \
        --encoder_checkpoint_path "$model" --train_dataset_path "$train" --eval_dataset_path "$eval" "$@"
}
