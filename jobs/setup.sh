#!/bin/sh
# Makes .venv: Python packages at the tested versions, Horovod built once and kept as a wheel in the cache.
# Without a compiler Horovod is left out, and training runs in one process.
#   setup.sh               the environment, with Horovod
#   setup.sh packages      the environment without Horovod, which `setup.sh horovod` adds
#   setup.sh horovod       Horovod for an environment that is there
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
        command -v mpicxx >/dev/null || wanted="$wanted libopenmpi-dev openmpi-bin"
    else
        command -v mpicxx >/dev/null || needed="$needed libopenmpi-dev openmpi-bin"
        command -v g++ >/dev/null || needed="$needed g++"
        command -v mvn >/dev/null || needed="$needed maven"
        command -v stilts >/dev/null || needed="$needed stilts"  # validates TAP
        command -v openssl >/dev/null || needed="$needed openssl"
        [ -x /usr/sbin/squid ] || command -v squid >/dev/null || needed="$needed squid"
        # what the mount's library is built from, and what lets an ordinary user mount
        pkg-config --exists fuse3 2>/dev/null || needed="$needed libfuse3-dev pkg-config"
        # Ubuntu has Chromium as a snap alone, which needs a system of its own: there the page is not tried
        [ "$(. /etc/os-release; echo "$ID")" != debian ] || command -v chromium >/dev/null || needed="$needed chromium"
        command -v fusermount3 >/dev/null || needed="$needed fuse3"
        ldconfig -p | grep -q libfuse.so.2 || needed="$needed libfuse2"
        command -v systemd-analyze >/dev/null || needed="$needed systemd"  # checks the units that apbatch service prints
        # hosts in namespaces
        { command -v ip && command -v nsenter; } >/dev/null || needed="$needed iproute2 util-linux"
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
        # Squid's own service is neither wanted nor left running.
        case "$needed" in *squid*) [ -e /usr/sbin/policy-rc.d ] || quiet=/usr/sbin/policy-rc.d ;; esac
        [ -z "${quiet:-}" ] || { printf '#!/bin/sh\nexit 101\n' >"$quiet" && chmod +x "$quiet"; }
        status=0
        apt-get update -q >/dev/null && apt-get install -q -y --no-install-recommends $needed $wanted >/dev/null ||
            status=$?
        [ -z "${quiet:-}" ] || rm -f "$quiet"
        exit $status
    fi
    [ -z "$wanted" ] || say "better with; as root: apt-get install$wanted"
    [ -n "$needed" ] || exit 0
    say "missing; as root: apt-get install$needed"
    exit 1
fi

command -v "$PYTHON" >/dev/null || { say "no $PYTHON; install it: apt-get install python3 python3-venv"; exit 1; }
"$PYTHON" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' ||
    { say "$PYTHON is not Python 3.11; name one by PYTHON=/path/to/python3.11 make …"; exit 1; }
if ! .venv/bin/uv --version >/dev/null 2>&1; then  # no environment yet, or one that was not finished
    "$PYTHON" -m venv --clear .venv || { say "venv is missing; install it: apt-get install python3-venv"; exit 1; }
    .venv/bin/python -m pip --disable-pip-version-check install -q -c constraints/all.txt uv
fi
# Compiled once: where PYTHONDONTWRITEBYTECODE is set each process would compile its libraries anew, TensorFlow for 8 s.
INSTALL=".venv/bin/uv pip install --compile-bytecode --python .venv/bin/python -c constraints/all.txt"
[ -t 2 ] || INSTALL="$INSTALL -q"  # uv shows its progress on a terminal

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
        if ! $INSTALL -c constraints/torch.txt --target "$TORCH.part$$" torch; then
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

if [ "${1:-}" != horovod ]; then
    say "Python packages (under a minute where the network is fast)"
    $INSTALL wheel packaging "setuptools<80" "cmake<4" pip
    $INSTALL --no-build-isolation -e ".[all,test]"
    # A test's oracle and the benchmark's peer for grids: it asks for an older ctapipe than ours, and works with ours.
    $INSTALL --no-deps dl1-data-handler || say "no dl1-data-handler: its comparisons are left out"
    if pkg-config --exists fuse3 2>/dev/null && command -v cc >/dev/null; then
        $INSTALL pyfuse3 mfusepy || say "pyfuse3 did not build: apbatch mount is left out"
    else
        say "without pyfuse3, so apbatch mount is left out; as root: apt-get install libfuse3-dev pkg-config gcc"
    fi
    touch .venv/.packages
    [ "${1:-}" != packages ] || exit 0
fi

if ! .venv/bin/python -c 'import horovod' 2>/dev/null; then
    TENSORFLOW=$(.venv/bin/python -c 'from importlib.metadata import version; print(version("tensorflow-cpu"))')
    # With Open MPI two ranks share two cores far better than over Gloo, which is always built.
    MPI=$(command -v mpicxx >/dev/null && echo -mpi || true)
    WHEELS=$CACHE/wheels/tensorflow-$TENSORFLOW-$(uname -m)$MPI
    if ! ls "$WHEELS"/horovod-*.whl >/dev/null 2>&1; then
        if ! command -v g++ >/dev/null; then
            say "no C++ compiler, so no Horovod: training runs in one process; apt-get install g++ and make again mends it"
            exit 0
        fi
        say "building Horovod once (two to five minutes), kept in $WHEELS"
        mkdir -p "$WHEELS"
        if ! env PATH="$PWD/.venv/bin:$PATH" HOROVOD_WITH_TENSORFLOW=1 HOROVOD_WITHOUT_PYTORCH=1 HOROVOD_WITHOUT_MXNET=1 \
            HOROVOD_WITH_GLOO=1 "HOROVOD_WITH$([ -n "$MPI" ] || echo OUT)_MPI=1" \
            .venv/bin/python -m pip --disable-pip-version-check wheel -q --no-deps --no-build-isolation \
            -c constraints/all.txt horovod==0.28.1 -w "$WHEELS" >"$WHEELS/build.log" 2>&1
        then
            say "Horovod did not build (see $WHEELS/build.log): training runs in one process"
            [ -z "${CI:-}" ] || exit 1  # where its tests must not be skipped
            exit 0
        fi
    fi
    $INSTALL --no-deps "$WHEELS"/horovod-*.whl
    $INSTALL cloudpickle
fi
touch .venv/.ready
say "ready"
