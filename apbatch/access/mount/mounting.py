"""Mounts as processes: started, watched, ended. A mount that no longer answers is taken away, so that no shell hangs.

Every mount is two processes: one answers the kernel, the other asks it from time to time whether it still does. When it
does not, it is killed, which ends all calls that wait for it, and what is left of it is unmounted.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import quote

from apbatch.config import home
from apbatch.errors import ApbatchError, MissingSoftwareError, ServerError, UsageError
from apbatch.progress import say
from apbatch.storage.deadline import within

#: A mount is asked so often, and must answer so soon: no call to a dead mount waits longer than their sum.
ASK_EVERY_S, ANSWER_WITHIN_S = 5.0, 30.0
_START_S, _COMMAND_S, _PAUSE_S = 600.0, 20.0, 0.05
_TYPE = "fuse.apbatch"
_OCTAL = re.compile(r"\\([0-7]{3})")
_PR_SET_PDEATHSIG = 1


def location(folder: Path) -> Path:
    """Return the absolute path of a mount's folder, without asking the mount itself for anything."""
    folder = folder.expanduser().absolute()
    return folder.parent.resolve() / folder.name


def is_mounted(folder: Path) -> bool:
    """Tell whether a mount of ours is at a folder, as `location` returns it; a dead one counts."""
    return device_of(folder) is not None


def device_of(folder: Path) -> str | None:
    """Return the device (``MAJOR:MINOR``) of our mount at a folder, None if there is none; the mount is not asked."""
    device = None
    with Path("/proc/self/mountinfo").open(encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            fields, _, rest = line.partition(" - ")
            place = _OCTAL.sub(lambda digits: chr(int(digits[1], 8)), fields.split(" ")[4])
            if place == str(folder) and rest.split(" ")[0] in (_TYPE, "fuse"):
                device = fields.split(" ")[2]
    return device


def answers(folder: Path, limit_s: float) -> bool:
    """Tell whether the mount at a folder answers in time."""
    try:
        within(limit_s, str(folder), os.statvfs, folder)
    except (ServerError, OSError):
        return False
    return True


def check(folder: Path) -> None:
    """Make sure that something can be mounted at a folder; a dead mount of ours there is taken away.

    Raises
    ------
    UsageError, MissingSoftwareError
    """
    if is_mounted(folder):
        if answers(folder, ASK_EVERY_S):
            raise UsageError("something is mounted there already", where=str(folder), remedy=f"apbatch umount {folder}")
        detach(folder)
    if not folder.is_dir():
        raise UsageError("this is not a folder", where=str(folder), remedy=f"mkdir {folder}")
    if not Path("/dev/fuse").exists():
        raise MissingSoftwareError(
            "this system has no /dev/fuse",
            remedy="modprobe fuse; a container needs the device and the right to mount (CAP_SYS_ADMIN)",
        )
    if os.geteuid() != 0 and shutil.which("fusermount3") is None and shutil.which("fusermount") is None:
        raise MissingSoftwareError("fusermount3 is not installed", remedy="apt-get install fuse3")


def log_file(folder: Path) -> Path:
    """Return where the mount at a folder writes what it has to say."""
    return home() / "mounts" / f"{quote(str(folder), safe='')[-200:]}.log"


def start(command: Sequence[str], folder: Path) -> int:
    """Start a mount that goes on when this process ends; return the number of its process once it is mounted.

    Parameters
    ----------
    command : sequence of str
        Runs `supervise` in the foreground.
    folder : pathlib.Path

    Raises
    ------
    ApbatchError
        With what the process said, if it ended.
    ServerError
        If it is not mounted in time.
    """
    log = log_file(folder)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    limit = time.monotonic() + _START_S
    while not is_mounted(folder):
        if process.poll() is not None:
            lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise ApbatchError(lines[-1].removeprefix("apbatch: ") if lines else "the mount ended", where=str(folder))
        if time.monotonic() > limit:
            process.terminate()
            raise ServerError(f"not mounted within {_START_S:g} s", where=str(folder), remedy=f"see {log}")
        time.sleep(_PAUSE_S)
    return process.pid


def supervise(
    serve: Callable[[], None], folder: Path, *, every_s: float = ASK_EVERY_S, within_s: float = ANSWER_WITHIN_S
) -> int:
    """Run a mount in a process of its own and watch it; return the exit status when it ended.

    Must be called before this process has threads or connections.

    Parameters
    ----------
    serve : callable
        Mounts, and returns when that is unmounted.
    folder : pathlib.Path
    every_s, within_s : float
        How often it is asked, and in which time it must answer.
    """
    server = os.fork()
    if server == 0:
        _serve(serve)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os.kill(server, signal.SIGTERM))
    status = _watch(server, folder, every_s, within_s)
    if is_mounted(folder) and not answers(folder, every_s):
        detach(folder)
    return status


def _serve(serve: Callable[[], None]) -> None:
    """Run in the child; end with the one who watches."""
    status = 1
    try:
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        serve()
        status = 0
    except ApbatchError as error:
        say(str(error))
        status = error.status
    except BaseException as error:
        say(f"{type(error).__name__}: {error}")
    finally:
        sys.stdout.flush()
        os._exit(status)


def _watch(server: int, folder: Path, every_s: float, within_s: float) -> int:
    last_check = time.monotonic()
    while True:
        ended, status = os.waitpid(server, os.WNOHANG)
        if ended:
            return max(0, os.waitstatus_to_exitcode(status)) if os.WIFEXITED(status) else 1
        if time.monotonic() - last_check >= every_s:
            if is_mounted(folder) and not answers(folder, within_s):
                say(f"{folder}: the mount did not answer within {within_s:g} s and is taken away")
                os.kill(server, signal.SIGKILL)
                os.waitpid(server, 0)
                return 1
            last_check = time.monotonic()
        time.sleep(_PAUSE_S)


def unmount(folder: Path, *, lazy: bool = False) -> None:
    """Unmount; a mount that does not answer is detached.

    Parameters
    ----------
    folder : pathlib.Path
    lazy : bool
        Detach it even if files in it are open.

    Raises
    ------
    UsageError
        If nothing of ours is mounted there, or it is in use.
    """
    if not is_mounted(folder):
        raise UsageError("nothing is mounted there by apbatch", where=str(folder))
    if lazy or not answers(folder, ASK_EVERY_S):
        detach(folder)
    else:
        helper = shutil.which("fusermount3")
        done = _command([helper, "-u", str(folder)] if helper else ["umount", str(folder)])
        if done.returncode != 0 and is_mounted(folder):
            raise UsageError(
                f"it can't be unmounted: {done.stderr.strip() or 'it is in use'}",
                where=str(folder),
                remedy="close what uses it, or apbatch umount --lazy",
            )
    limit = time.monotonic() + _COMMAND_S
    while is_mounted(folder) and time.monotonic() < limit:
        time.sleep(_PAUSE_S)


def detach(folder: Path) -> None:
    """Take a mount away at once, whatever state it is in.

    Raises
    ------
    UsageError
        If the system does not allow it.
    """
    helper = shutil.which("fusermount3")
    done = _command([helper, "-uz", str(folder)] if helper else ["umount", "-l", str(folder)])
    if done.returncode != 0 and is_mounted(folder):
        raise UsageError(f"it can't be detached: {done.stderr.strip()}", where=str(folder))


def _command(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise ServerError(f"{command[0]} did not end within {_COMMAND_S:g} s", where=command[-1]) from error
    except OSError as error:
        raise MissingSoftwareError(f"{command[0]}: {os.strerror(error.errno or errno.ENOENT)}") from error
