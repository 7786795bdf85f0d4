"""Where splits lie, so that Spark starts a task on a machine that has its bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

from apbatch.errors import ApbatchError
from apbatch.spark.bulk import AnySplit
from apbatch.spark.inputs.splits import Split
from apbatch.storage.backends import open_store, split_url

_ASKING = 16
#: Hosts named for a split: those with most of it.
_HOSTS = 3


def with_hosts(splits: Sequence[AnySplit]) -> list[AnySplit]:
    """Return the splits with the hosts that have most of their bytes; as they are where stores do not tell."""
    urls = list(dict.fromkeys(url for split in splits for url, _, _ in _stretches(split)))
    remote = [url for url in urls if not url.startswith(("file://", "afs://"))]
    if not remote:
        return list(splits)
    with ThreadPoolExecutor(_ASKING) as pool:
        blocks = dict(zip(remote, pool.map(_blocks, remote), strict=True))
    totals: Counter[str] = Counter()
    for split in splits:
        for url, start, size in _stretches(split):
            totals[url] = totals[url] + size if isinstance(split, Split) else max(totals[url], start + size)
    offsets: Counter[str] = Counter()
    return [replace(split, hosts=_hosts(split, blocks, totals, offsets)) for split in splits]


def _hosts(
    split: AnySplit, blocks: dict[str, list[list[str]]], totals: Counter[str], offsets: Counter[str]
) -> tuple[str, ...]:
    weight: Counter[str] = Counter()
    for url, start, size in _stretches(split):
        of_file = blocks.get(url, [])
        if not of_file or not size:
            continue
        if isinstance(split, Split):  # stretches of row groups or entries follow one another in the file
            start = offsets[url]
            offsets[url] += size
        total = max(totals[url], start + size)
        first = start * len(of_file) // total
        last = (start + size - 1) * len(of_file) // total
        for block in of_file[first : last + 1]:
            for host in block:
                weight[host] += size // (last + 1 - first)
    return tuple(host for host, _ in weight.most_common(_HOSTS))


def _stretches(split: AnySplit) -> Iterator[tuple[str, int, int]]:
    """Yield URL, first byte and number of bytes of what a split reads."""
    if isinstance(split, Split):
        for piece in split.pieces:
            yield piece.source.url, 0, piece.bytes
    else:
        for file in split.files:
            for start, stop in file.spans:
                yield file.source.url, start, stop - start


def _blocks(url: str) -> list[list[str]]:
    with suppress(ApbatchError):
        root, _ = split_url(url)
        store = open_store(root)
        return store.block_hosts(store.path_of(url))
    return []
