# A virtual environment with a requirements file in it, for quickstart.sh, test.sh and .ci/run.
# shellcheck shell=sh

# find_python: print a Python of a version that MindSpore has a wheel for; PYTHON names another.
find_python() {
    for candidate in "${PYTHON:-python3}" python python3.11 python3.10 python3.12 python3.9; do
        if "$candidate" -c 'import sys, venv; sys.exit(not (3, 9) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    fail "no Python 3.9 to 3.12 with the venv module found; install one, or name it: PYTHON=/path/to/python sh $0"
}

# make_venv REQUIREMENTS: in .venv; skipped where the same requirements are installed already.
make_venv() {
    venv=$ROOT/.venv
    wanted=$(cat "$ROOT"/requirements*.txt | cksum)
    if [ "$(cat "$venv/.installed-$1" 2>/dev/null)" != "$wanted" ]; then
        python=$(find_python) || exit 2
        echo "Installing $1 into $venv with $("$python" --version) ..."
        "$python" -m venv "$venv" || fail "cannot make $venv; on Debian and Ubuntu: apt install python3-venv"
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$ROOT/$1" || exit 1
        "$venv/bin/python" "$ROOT/scripts/build_cpu_layers.py" || exit 1
        echo "$wanted" >"$venv/.installed-$1"
    fi
}
