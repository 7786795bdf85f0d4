"""Registration and rescan of a site's tree, against `find -printf` and rows that the bare driver inserts."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from apbatch.bench.case import Case, Operation
from apbatch.bench.cases.catalogue.bare_sql import BareSqlite
from apbatch.bench.runner import Group
from apbatch.errors import VerificationError
from apbatch.index.catalogue import Catalogue
from apbatch.index.files import State
from apbatch.ingest.records import listed
from apbatch.ingest.scan import ingest
from apbatch.ingest.site import Site

FIND, FIND_AND_INSERT = "find -printf", "find -printf, bare inserts"
_FILES_A_FOLDER = 1000
#: More files take the disk's time, and tell nothing else.
_MOST = 100_000


def rescan_groups(number: int, catalogues: Mapping[str, Catalogue], scratch: Path) -> Iterator[Group]:
    """Yield the groups: all files new, and none changed.

    Parameters
    ----------
    number : int
        Empty files that are made, at most 1,000 a folder and 100,000 in all.
    catalogues : Mapping
        Catalogues by peer; the site of this benchmark is in none of them.
    scratch : Path
        Folder for the tree.
    """
    number = min(number, _MOST)
    root = scratch.absolute() / "site"
    for n in range(number):
        if n % _FILES_A_FOLDER == 0:
            folder = root / f"{n // _FILES_A_FOLDER // 365 + 2017}" / f"{n // _FILES_A_FOLDER:06}"
            folder.mkdir(parents=True, exist_ok=True)
        os.close(os.open(folder / f"{n % _FILES_A_FOLDER:04}.dat", os.O_CREAT | os.O_WRONLY))
    site = Site(name="tree", experiment="bench", root=str(root))
    register = Operation(
        "index",
        "register a tree",
        f"{number} new files listed and registered, none read, by CPU time of the client.",
        "files/s",
        float(number),
        reference=FIND_AND_INSERT,
        clock="cpu",
    )
    bare = _FindAndInsert(register, root, number, scratch, site)
    yield Group(register, [bare, *(_Register(register, peer, one, site, number) for peer, one in catalogues.items())])
    rescan = Operation(
        "index",
        "rescan a tree",
        f"{number} files of which none changed, by CPU time of the client.",
        "files/s",
        float(number),
        reference=FIND,
        clock="cpu",
    )
    baseline = _Find(rescan, root, number)
    yield Group(rescan, [baseline, *(_Rescan(rescan, peer, one, site, number) for peer, one in catalogues.items())])


class _Find(Case):
    """List by `find`; proof: so many lines."""

    def __init__(self, operation: Operation, root: Path, number: int, peer: str = FIND) -> None:
        super().__init__(operation, peer)
        self._number = number
        self._command = [shutil.which("find") or "find", str(root), "-type", "f", "-printf", r"%p\t%s\t%T@\n"]
        self._lines: list[bytes] = []

    def run(self) -> None:
        done = subprocess.run(self._command, stdout=subprocess.PIPE, check=True)
        self._lines = done.stdout.splitlines()

    def cpu_times(self) -> tuple[float, float]:
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(one.ru_utime for one in used), sum(one.ru_stime for one in used)

    def check(self) -> None:
        if len(self._lines) != self._number:
            raise VerificationError(f"find tells of {len(self._lines)} files, there are {self._number}")


class _FindAndInsert(_Find):
    """List by `find`, and insert as many rows of the catalogue's own table, which were made before."""

    def __init__(self, operation: Operation, root: Path, number: int, scratch: Path, site: Site) -> None:
        super().__init__(operation, root, number, FIND_AND_INSERT)
        self._file, self._site = scratch / "tree.sqlite", site
        self._bare: BareSqlite | None = None

    def prepare(self) -> None:
        self.tear_down()
        self._bare = BareSqlite(self._file)
        self._rows = self._bare.prepared([listed(self._site, f"{n:08}", 0, n) for n in range(self._number)], 1)

    def run(self) -> None:
        super().run()
        assert self._bare is not None
        self._bare.write(self._rows)

    def tear_down(self) -> None:
        if self._bare is not None:
            self._bare.close()
        self._bare = None
        for path in self._file.parent.glob(f"{self._file.name}*"):
            path.unlink()


class _Register(Case):
    """List a site whose files are in no catalogue; proof: each is listed there."""

    def __init__(self, operation: Operation, peer: str, catalogue: Catalogue, site: Site, number: int) -> None:
        super().__init__(operation, peer)
        self._catalogue, self._site, self._number, self._listed = catalogue, site, number, 0

    def prepare(self) -> None:
        while paths := self._catalogue.listing(self._site.name, columns=("path",)).batch.column(0).to_pylist():
            self._catalogue.remove(paths)

    def run(self) -> None:
        self._listed = ingest(self._site, self._catalogue, list_only=True).listed

    def check(self) -> None:
        listed = sum(file.state is State.LISTED for file in self._catalogue.of_site(self._site.name))
        if not self._listed == listed == self._number:
            raise VerificationError(f"{listed} files are listed, {self._listed} were new, there are {self._number}")


class _Rescan(_Register):
    """List it again; proof: nothing was new, and all are there. Round 0 finds no digests yet."""

    def prepare(self) -> None:
        if not self._catalogue.listing(self._site.name, size=1).batch.num_rows:
            super().run()

    def check(self) -> None:
        self._listed += self._number
        super().check()
