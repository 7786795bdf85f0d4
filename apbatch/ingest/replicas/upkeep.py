"""Keeps stores as rules want them: mirrors rule by rule, then prunes if every file has what the rules want."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from apbatch.index.catalogue import Catalogue
from apbatch.index.files import FileRecord
from apbatch.ingest.replicas.mirror import FILES, mirror_records
from apbatch.ingest.replicas.outcomes import MirroredFile, MirrorSummary
from apbatch.ingest.replicas.pruning import Pruned, PrunedReplica, prune
from apbatch.ingest.replicas.rules import ReplicaRule, ReplicaRules
from apbatch.progress import say

#: Mirrors the files of one rule; another one than `mirror_records` may have others do the work.
Mirroring = Callable[[Iterator[FileRecord], ReplicaRule], Iterator[MirroredFile]]


class Upkeep:
    """One run of all rules.

    Parameters
    ----------
    catalogue : Catalogue
    rules : ReplicaRules
    prune : bool
        Afterwards remove what no rule wants.
    dry_run, verify, threads
        As `apbatch.ingest.replicas.mirror.mirror` takes them.
    mirroring : callable, optional
        Mirrors the files of a rule; by default threads of this process do.

    Attributes
    ----------
    sums : list of dict
        One record for each rule that ended, and one for what was pruned.
    failed : bool
        Whether a file has no good replica where a rule wants one, or a replica could not be removed.
    """

    def __init__(
        self, catalogue: Catalogue, rules: ReplicaRules, *, prune: bool = False, dry_run: bool = False,
        verify: bool = False, threads: int = FILES, mirroring: Mirroring | None = None,
    ) -> None:  # fmt: skip
        self._catalogue, self._rules, self._prune, self._dry_run = catalogue, rules, prune, dry_run
        self._verify, self._threads = verify, threads
        self._mirroring = mirroring or self._here
        self.sums: list[dict[str, object]] = []
        self.failed = False

    def run(self) -> Iterator[MirroredFile | PrunedReplica]:
        """Do it, and yield what became of each file as it ends."""
        for rule in self._rules.rules:
            summary = MirrorSummary(rule.store.url)
            for file in self._mirroring(self._catalogue.select(rule.query), rule):
                summary.add(file)
                yield file
            self.sums.append({**({"rule": rule.name} if rule.name else {}), **summary.record()})
            self.failed = self.failed or summary.failed > 0
        if self._prune:
            yield from self._pruned()

    def finish(self) -> None:
        """Do it all; `sums` says what was done."""
        for _ in self.run():
            pass

    def _here(self, records: Iterator[FileRecord], rule: ReplicaRule) -> Iterator[MirroredFile]:
        return mirror_records(
            self._catalogue,
            records,
            rule.store,
            under=rule.under,
            verify=self._verify,
            dry_run=self._dry_run,
            threads=self._threads,
        )

    def _pruned(self) -> Iterator[PrunedReplica]:
        if self.failed:
            say("nothing is pruned: not every file has the replicas that the rules want")
            return
        counts: Counter[str] = Counter()
        removed = 0
        for one in prune(self._catalogue, self._rules, dry_run=self._dry_run):
            counts[one.outcome.value] += 1
            if one.outcome in (Pruned.REMOVED, Pruned.WOULD_REMOVE):
                removed += one.size
            if one.outcome is Pruned.FAILED:
                say(f"{one.url}: {one.reason}")
            yield one
        self.failed = counts[Pruned.FAILED.value] > 0
        self.sums.append({"rule": "(no rule)", "files": counts.total(), **counts, "bytes removed": removed})
