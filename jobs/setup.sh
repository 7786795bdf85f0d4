#!/bin/sh
# Makes .venv: Python packages at the tested versions, Horovod built once and kept as a wheel in the cache.
# Without a compiler Horovod is left out, and training runs in one process.
#   setup.sh               the environment
#   setup.sh system        Debian packages that the environment and the tests' servers need: installed as root, else named
#   setup.sh system demo   those of the demo alone
#   setup.sh torch         .venv-torch: the same environment and PyTorch, which is kept in the cache; for tests
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3.11}
CACHE=${APBATCH_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/apbatch}
say() { echo "setup: $*" >&2; }

if [ "${1:-}" = system ]; then
    needed= wanted=
    "$PYTHON" -c 'import ensurepip' 2>/dev/null || needed="$needed python3 python3-venv"
    command -v java >/dev/null || needed="$needed openjdk-17-jre-headless"
    if [ "${2:-test}" = demo ]; then
        command -v g++ >/dev/null || wanted=" g++"
    else
        command -v g++ >/dev/null || needed="$needed g++"
        command -v mvn >/dev/null || needed="$needed maven"
        # the server alone: its package's own cluster is neither made nor started
        ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || needed="$needed postgresql"
    fi
    [ -n "$needed$wanted" ] || exit 0
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "installing$needed$wanted"
        export DEBIAN_FRONTEND=noninteractive
        case "$needed" in *postgresql*)
            mkdir -p /etc/postgresql-common
            [ -e /etc/postgresql-common/createcluster.conf ] ||
                echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.conf
        esac
        apt-get update -q >/dev/null && apt-get install -q -y --no-install-recommends $needed $wanted >/dev/null
        exit $?
    fi
    [ -z "$wanted" ] || say "better with; as root: apt-get install$wanted"
    [ -n "$needed" ] || exit 0
    say "missing; as root: apt-get install$needed"
    exit 1
fi

command -v "$PYTHON" >/dev/null || { say "no $PYTHON; install it: apt-get install python3 python3-venv"; exit 1; }
"$PYTHON" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' ||
    { say "$PYTHON is not Python 3.11; name one by PYTHON=/path/to/python3.11 make …"; exit 1; }
if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then  # none yet, or one that was not finished
    "$PYTHON" -m venv --clear .venv || { say "venv is missing; install it: apt-get install python3-venv"; exit 1; }
fi
PIP=".venv/bin/python -m pip --disable-pip-version-check"

if [ "${1:-}" = torch ]; then
    rm -rf .venv-torch
    TORCH=$CACHE/torch-$(sed -n 's/^torch==//p' constraints/torch.txt)-$(uname -m)
    if [ ! -d "$TORCH" ]; then
        mkdir -p "$CACHE"
        free=$(df -Pk "$CACHE" | awk 'NR == 2 {print int($4 / 1048576)}')
        if [ "$free" -lt 8 ]; then
            say "no PyTorch, so its test is left out: $CACHE has $free GB left and 8 are needed"
            exit 0
        fi
        say "PyTorch and its libraries (5 GB, a minute or more), kept in $TORCH"
        if ! $PIP install -q -c constraints/all.txt -c constraints/torch.txt --no-warn-conflicts --target "$TORCH.part$$" torch; then
            rm -rf "$TORCH.part$$"
            say "PyTorch was not installed, so its test is left out"
            exit 0
        fi
        mv -T "$TORCH.part$$" "$TORCH" || rm -rf "$TORCH.part$$"  # another clone was first
    fi
    "$PYTHON" -m venv --without-pip .venv-torch
    for folder in "$PWD/.venv/lib/python3.11/site-packages" "$TORCH"; do
        echo "import site; site.addsitedir('$folder')"
    done >.venv-torch/lib/python3.11/site-packages/apbatch.pth
    exit
fi

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
