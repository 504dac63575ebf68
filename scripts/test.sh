#!/bin/sh
# Set up what the tests need and run them; arguments go to pytest.
# CIFAR10_DIR names a folder with CIFAR-10 for the tests on real images; without it they are skipped.
# shellcheck source=/dev/null
. "$(dirname -- "$0")/common.sh"
# shellcheck source=/dev/null
. "$(dirname -- "$0")/venv.sh"

if [ -n "${CIFAR10_DIR:-}" ]; then
    CIFAR10_DIR=$(absolute "$CIFAR10_DIR")
    export CIFAR10_DIR
fi
make_venv "$ROOT/.venv" requirements-dev.txt
tune CPU
cd "$ROOT" && exec .venv/bin/python -m pytest -n 2 --dist loadfile "$@"
