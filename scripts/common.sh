# What the launchers share; each sources it as its first step and defines `usage`.
# shellcheck shell=sh

# shellcheck disable=SC2034  # the launchers' usage shows it
DATA_SETS="cifar10, cifar100, stl10, imagefolder or shapes"
ROOT=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)

# fail MESSAGE: one line on standard error, status 2.
fail() {
    echo "$(basename -- "$0"): $1" >&2
    exit 2
}

# absolute PATH: the path as seen from the caller's folder.
absolute() {
    case $1 in
        /*) printf '%s\n' "$1" ;;
        *) printf '%s/%s\n' "$(pwd)" "$1" ;;
    esac
}

check_dataset() {
    case $1 in
        cifar10 | cifar100 | stl10 | imagefolder | shapes) ;;
        *) fail "data set: got '$1', takes $DATA_SETS" ;;
    esac
}

check_folder() { # NAME PATH [DATA_SET]; shapes is generated where it is missing
    [ -d "$2" ] || [ "${3:-}" = shapes ] || fail "$1: $2 is not a folder"
}

check_device() {
    case $1 in
        '' | *[!0-9]*) fail "DEVICE_ID: got '$1', takes a device number such as 0" ;;
    esac
}

check_flags() { # what follows the fixed arguments
    case ${1:---} in
        --*) ;;
        *) usage ;;
    esac
}

# What must stand in the environment before a process on the CPU starts: large pages for its heap.
# The rest src/distributed/environment.py sets itself. The user's own value wins.
tune() { # DEVICE_TARGET
    if [ "$1" = CPU ]; then
        export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"
    fi
}

# chosen_python: print the place of the Python to run: PYTHON, or what the PATH has.
chosen_python() {
    command -v "${PYTHON:-python}" || command -v "${PYTHON:-python3}" ||
        fail "there is no ${PYTHON:-python} on the PATH; name one: PYTHON=/path/to/python sh $0"
}

# launch LOG SCRIPT ARGUMENT...: run a script of the project with its output in LOG, in the caller's
# folder; in the background, or with FOREGROUND=1 in front, on the screen too and with its exit status.
launch() {
    log=$(absolute "$1")
    script=$ROOT/$2
    shift 2
    python=$(chosen_python) || exit 2
    export PYTHONUNBUFFERED=1
    [ ! -s "$log" ] || mv -f "$log" "$log.1" # of an earlier run
    (: >"$log") 2>/dev/null || fail "log: cannot write $log; call the launcher from a folder that can be written"
    echo "log: $log"
    if [ "${FOREGROUND:-0}" = 1 ]; then
        status_file=$(mktemp)
        { "$python" "$script" "$@" 2>&1 || echo $? >"$status_file"; } | tee -a "$log"
        status=$(cat "$status_file")
        rm -f "$status_file"
        exit "${status:-0}"
    fi
    nohup "$python" "$script" "$@" >>"$log" 2>&1 </dev/null &
    echo "process id: $!"
}

# train_standalone DEVICE_TARGET DEVICE_ID DATA_SET TRAIN_DATASET_PATH [--flag value ...]
train_standalone() {
    check_device "$2"
    check_dataset "$3"
    check_folder TRAIN_DATASET_PATH "$4" "$3"
    target=$1 device=$2 dataset=$3 train=$(absolute "$4")
    shift 4
    check_flags "$@"
    tune "$target"
    launch log train.py --device_target "$target" --device_id "$device" --dataset_name "$dataset" \
        --train_dataset_path "$train" "$@"
}

# eval_standalone DEVICE_TARGET DEVICE_ID DATA_SET MODEL_PATH TRAIN_DATASET_PATH EVAL_DATASET_PATH [--flag value ...]
eval_standalone() {
    check_device "$2"
    check_dataset "$3"
    [ -e "$4" ] || fail "SIMCLR_MODEL_PATH: there is no $4"
    check_folder TRAIN_DATASET_PATH "$5" "$3"
    check_folder EVAL_DATASET_PATH "$6" "$3"
    target=$1 device=$2 dataset=$3 model=$(absolute "$4") train=$(absolute "$5") eval=$(absolute "$6")
    shift 6
    check_flags "$@"
    tune "$target"
    launch eval_log linear_eval.py --device_target "$target" --device_id "$device" --dataset_name "$dataset" \
        --encoder_checkpoint_path "$model" --train_dataset_path "$train" --eval_dataset_path "$eval" "$@"
}
