#!/bin/sh
# Makes .venv: Python packages at the tested versions, Horovod built once and kept as a wheel in the cache.
# Without a compiler Horovod is left out, and training runs in one process.
#   setup.sh          the environment
#   setup.sh system   Debian packages that the tests' servers and Horovod need: installed as root, else named
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3.11}
CACHE=${APBATCH_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/apbatch}
say() { echo "setup: $*" >&2; }

if [ "${1:-}" = system ]; then
    missing=
    command -v g++ >/dev/null || missing="$missing g++"
    command -v java >/dev/null || missing="$missing openjdk-17-jre-headless"
    command -v mvn >/dev/null || missing="$missing maven"
    [ -n "$missing" ] || exit 0
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "installing$missing"
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -q >/dev/null && apt-get install -q -y --no-install-recommends $missing >/dev/null
    else
        say "missing; as root: apt-get install$missing"
        exit 1
    fi
    exit 0
fi

command -v "$PYTHON" >/dev/null || { say "no $PYTHON; install it: apt-get install python3 python3-venv"; exit 1; }
"$PYTHON" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' ||
    { say "$PYTHON is not Python 3.11; name one by PYTHON=/path/to/python3.11 make …"; exit 1; }
if [ ! -x .venv/bin/python ]; then
    "$PYTHON" -m venv .venv || { say "venv is missing; install it: apt-get install python3-venv"; exit 1; }
fi
PIP=".venv/bin/python -m pip --disable-pip-version-check"
say "Python packages (about two minutes the first time)"
$PIP install -q -c constraints/all.txt wheel packaging "setuptools<80" "cmake<4"
$PIP install -q -c constraints/all.txt --no-build-isolation -e ".[all,test]"
# A test's oracle and the benchmark's peer for grids: it asks for an older ctapipe than ours, and works with ours.
$PIP install -q --no-deps -c constraints/all.txt dl1-data-handler || say "no dl1-data-handler: its comparisons are left out"

TENSORFLOW=$(.venv/bin/python -c 'from importlib.metadata import version; print(version("tensorflow-cpu"))')
WHEELS=$CACHE/wheels/tensorflow-$TENSORFLOW-$(uname -m)
if ! .venv/bin/python -c 'import horovod' 2>/dev/null; then
    if ! ls "$WHEELS"/horovod-*.whl >/dev/null 2>&1; then
        if ! command -v g++ >/dev/null; then
            say "no C++ compiler, so no Horovod: training runs in one process; apt-get install g++ and make again mends it"
            exit 0
        fi
        say "building Horovod once (two to five minutes), kept in $WHEELS"
        mkdir -p "$WHEELS"
        if ! PATH="$PWD/.venv/bin:$PATH" HOROVOD_WITH_TENSORFLOW=1 HOROVOD_WITHOUT_PYTORCH=1 HOROVOD_WITHOUT_MXNET=1 \
            HOROVOD_WITHOUT_MPI=1 HOROVOD_WITH_GLOO=1 HOROVOD_CPU_OPERATIONS=GLOO \
            $PIP wheel -q --no-deps --no-build-isolation -c constraints/all.txt horovod==0.28.1 -w "$WHEELS" >"$WHEELS/build.log" 2>&1
        then
            say "Horovod did not build (see $WHEELS/build.log): training runs in one process"
            exit 0
        fi
    fi
    $PIP install -q --no-deps "$WHEELS"/horovod-*.whl
    $PIP install -q -c constraints/all.txt cloudpickle
fi
touch .venv/.ready
say "ready"
