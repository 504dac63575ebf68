#!/bin/sh
# Set up what the tests need and run them; arguments go to pytest.
# CIFAR10_DIR names a folder with CIFAR-10 for the tests on real images; without it they are skipped.
. "$(dirname -- "$0")/lib/common.sh"
. "$(dirname -- "$0")/lib/venv.sh"

if [ -n "${CIFAR10_DIR:-}" ]; then
    CIFAR10_DIR=$(absolute "$CIFAR10_DIR")
    export CIFAR10_DIR
fi
make_venv requirements-dev.txt
tune CPU
cd "$ROOT" || exit
trap : INT # pytest answers to Ctrl-C, and its status counts
.venv/bin/python -m pytest -n 2 --dist loadfile "$@"
status=$?
.venv/bin/python -c 'import importlib.util, sys; sys.exit(not importlib.util.find_spec("torch"))' ||
    echo "The comparisons with PyTorch were left out; to have them:" \
        "\`.venv/bin/python -m pip install -r benchmarks/requirements.txt\`, then the same command again"
exit "$status"
