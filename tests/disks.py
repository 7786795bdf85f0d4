"""A small disk in the place of a folder, for what happens when it is full."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest


class SmallDisk:
    """A file system in memory in the place of a folder, with little room beside what the folder holds.

    Parameters
    ----------
    folder : Path
    room : int
        Bytes.
    """

    def __init__(self, folder: Path, room: int) -> None:
        self.folder = folder
        kept, owner = folder.with_name(f"{folder.name}.kept"), folder.stat()
        used = sum(path.lstat().st_blocks * 512 for path in folder.rglob("*"))
        folder.rename(kept)
        folder.mkdir()
        place = f"uid={owner.st_uid},gid={owner.st_gid},mode=700"
        done = self._mount(f"size={used + room},{place}")
        if done.returncode:
            folder.rmdir()
            kept.rename(folder)
            pytest.skip(f"a full disk is NOT tried, as nothing can be mounted here: {done.stderr.strip()}")
        shutil.copytree(kept, folder, dirs_exist_ok=True, copy_function=_copied)
        for path in folder.rglob("*"):
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
        shutil.rmtree(kept)

    def _mount(self, options: str) -> subprocess.CompletedProcess[str]:
        command = ["mount", "-t", "tmpfs", "-o", options, "none", str(self.folder)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def leave(self, room: int) -> None:
        """Leave so many bytes free."""
        used = os.statvfs(self.folder)
        self._resize((used.f_blocks - used.f_bfree) * used.f_frsize + room)

    def grow(self) -> None:
        """Free space, as a user does."""
        self._resize(1 << 30)

    def _resize(self, size: int) -> None:
        done = self._mount(f"remount,size={size}")
        assert done.returncode == 0, done.stderr

    def unmount(self) -> None:
        """Take the disk away with all that is on it."""
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True)


def _copied(source: str, target: str) -> None:
    shutil.copy2(source, target, follow_symlinks=False)
