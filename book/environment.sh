#!/bin/sh
# Make .venv where it is missing, and install into it:  book/environment.sh STAMP PIP-ARGUMENTS…
# The stamp holds a checksum of what was asked for and is written last: an installation that was cut off is done again,
# one that is complete needs no network.
set -u
cd "$(dirname "$0")/.." || exit 1
stamp=$1
shift
fail() { printf 'make: %s\n' "$*" >&2; exit 1; }

in_range='import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))'
if ! .venv/bin/python -c "import pip; $in_range" 2>/dev/null; then
    found='' without_venv=''
    for python in "${PYTHON:-python3}" python3.13 python3.12 python3.11 python3.10; do
        "$python" -c "$in_range" 2>/dev/null || continue
        if "$python" -c 'import ensurepip, venv' 2>/dev/null; then found=$python; break; fi
        without_venv=${without_venv:-$python}
    done
    if [ -z "$found" ] && [ -n "$without_venv" ]; then
        fail "$without_venv has no venv module: install it (Debian: apt install python3-venv) and try again"
    elif [ -z "$found" ]; then
        fail "Python 3.10 to 3.13 is needed and ${PYTHON:-python3} is $("${PYTHON:-python3}" -V 2>/dev/null || echo missing):" \
             "install one (Debian: apt install python3 python3-venv) or name it: make PYTHON=/path/to/python3.12"
    fi
    "$found" -m venv --clear .venv || fail "$found could not make .venv"
fi

asked=$(cat pyproject.toml requirements.txt requirements.lock render/requirements.txt 2>/dev/null | cksum)
if [ "$(cat "$stamp" 2>/dev/null)" = "$asked $*" ]; then
    touch "$stamp"
    exit
fi

log=.venv/install.log
began=$(date +%s)
[ -t 2 ] || printf 'installing the packages into .venv (a minute or two)\n' >&2
pip() { .venv/bin/python -m pip install --disable-pip-version-check --no-input --retries 2 "$@"; }
# uv installs several times faster; where PyPI has no wheel of it for this machine, pip does. Both compile to bytecode:
# without it, each process where PYTHONDONTWRITEBYTECODE is set spends four more seconds on importing TensorFlow.
if .venv/bin/python -m uv --version >"$log" 2>&1 || pip --only-binary uv uv >"$log" 2>&1; then
    .venv/bin/python -m uv pip install --compile-bytecode --python .venv/bin/python "$@" >"$log" 2>&1 &
else
    pip "$@" >"$log" 2>&1 &
fi
installer=$!
trap 'kill $installer 2>/dev/null; exit 130' INT TERM
while [ -t 2 ] && kill -0 $installer 2>/dev/null; do
    printf '\r\033[Kinstalling into .venv, %ss: %.60s' $(($(date +%s) - began)) "$(tail -n 1 "$log")" >&2
    sleep 1
done
[ -t 2 ] && printf '\r\033[K' >&2
wait $installer ||
    fail "the packages could not be installed (is the network there?): $(grep -i error "$log" | tail -n 1) (all of it: $log)"
printf 'installed into .venv in %s s\n' $(($(date +%s) - began)) >&2
printf '%s\n' "$asked $*" >"$stamp"
