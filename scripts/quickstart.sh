#!/bin/sh
# See SimCLR learn: install, pretrain a small encoder, evaluate it against an untrained one, export it
# and classify a few test images with the exported file. A few minutes on two cores.
. "$(dirname -- "$0")/lib/common.sh"
. "$(dirname -- "$0")/lib/venv.sh"

[ $# -le 1 ] || fail "usage: sh scripts/quickstart.sh [CIFAR10_DIR]"
if [ $# -eq 1 ]; then
    check_folder CIFAR10_DIR "$1"
    dataset=cifar10 data=$(absolute "$1")
else
    dataset=shapes data=$ROOT/data/shapes
fi
make_venv requirements.txt
tune CPU
run=$ROOT/outputs/quickstart-$dataset-$(date +%Y%m%d-%H%M%S)
begin=$(date +%s)

# step TITLE SCRIPT ARGUMENT...
step() {
    printf '\n== %s\n$ python' "$1"
    shift
    printf ' %s' "$@"
    printf '\n'
    (cd "$ROOT" && exec "$ROOT/.venv/bin/python" "$@") || exit
}

evaluate() { # TITLE CHECKPOINT OUTPUT_FOLDER
    step "$1" linear_eval.py --device_target CPU --config configs/quickstart_eval.yaml --train_dataset_path "$data" \
        --encoder_checkpoint_path "$2" --train_output_path "$3"
}

step "the data" scripts/check_data.py "$dataset" "$data"
step "1 of 6: pretrain a small encoder, without labels" train.py --device_target CPU --config configs/quickstart.yaml \
    --dataset_name "$dataset" --train_dataset_path "$data" --train_output_path "$run"
evaluate "2 of 6: what a linear classifier reads from it" "$run/checkpoint/latest" "$run"
evaluate "3 of 6: the same for the untrained encoder" "$run/checkpoint/checkpoint_simclr-0.ckpt" "$run/untrained"
step "4 of 6: export encoder and classifier" export.py --device_target CPU \
    --ckpt_simclr_encoder "$run/checkpoint/latest" --ckpt_linear_classifier "$run/linear_classifier/latest" \
    --file_name "$run/simclr" --batch_size 8
step "5 of 6: the run as a page" report.py "$run"
step "6 of 6: classify test images with the exported file" scripts/lib/quickstart_summary.py \
    "$run" "$dataset" "$data" "$(($(date +%s) - begin))"
