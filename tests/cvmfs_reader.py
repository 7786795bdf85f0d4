"""A strict reader of CernVM-FS repositories, written from the format's description; it shares no code with the export.

Signatures are verified by `openssl`. What it checks is what `cvmfs_swissknife check` does: signatures, expiry, hashes,
sizes and prefixes of catalogs, link counts, markers, lists of chunks, counters.
"""

from __future__ import annotations

import hashlib
import sqlite3
import stat
import struct
import subprocess
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

#: Gives what a URL below the repository's root answers; None for 404.
Fetch = Callable[[str], bytes | None]
COUNTERS = {
    prefix + name
    for prefix in ("self_", "subtree_")
    for name in (
        "regular", "symlink", "special", "dir", "nested", "chunked", "chunks", "file_size", "chunked_size", "xattr",
        "external", "external_file_size",
    )
}  # fmt: skip


@dataclass
class Node:
    """A file or folder; `pieces` are offset, length and URL of each."""

    is_folder: bool
    size: int
    mtime_ns: int
    mode: int
    pieces: list[tuple[int, int, str]] = field(default_factory=list)


@dataclass
class Repository:
    fields: dict[str, str]
    nodes: dict[bytes, Node]
    catalogs: dict[bytes, str]


def openssl(*arguments: str | Path, data: bytes) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["openssl", *map(str, arguments)], input=data, capture_output=True, check=False)


def need(holds: object, what: str) -> None:
    if not holds:
        raise AssertionError(what)


def read_repository(fetch: Fetch, name: str, public_key: Path, now: datetime | None = None) -> Repository:
    """Read all of a repository, as a client that knows nothing but its public key would, and check it."""
    manifest = fetch(".cvmfspublished")
    assert manifest is not None
    text, digest, signature = split(manifest)
    fields = {line[0]: line[1:] for line in text.decode("ascii").splitlines()}
    need(fields["N"] == name and fields["R"] == "d41d8cd98f00b204e9800998ecf8427e", "name and root path")
    need(int(fields["S"]) > 0 and int(fields["D"]) > 0 and int(fields["T"]) > 0, "revision, TTL, time")
    certificate = zlib.decompress(checked_object(fetch, fields["X"], "X"))
    check_signatures(certificate, digest, signature, fetch, name, public_key, now or datetime.now(UTC))
    reader = _Reader(fetch)
    reader.catalog(fields["C"], int(fields["B"]), b"")
    return Repository(fields, reader.nodes, reader.catalogs)


def split(document: bytes) -> tuple[bytes, bytes, bytes]:
    place = document.index(b"\n--\n") + 1
    text, rest = document[:place], document[place + 3 :]
    digest, newline, signature = rest[:40], rest[40:41], rest[41:]
    need(newline == b"\n" and hashlib.sha1(text).hexdigest().encode() == digest, "digest of a signed document")
    return text, digest, signature


def checked_object(fetch: Fetch, hash: str, suffix: str) -> bytes:
    content = fetch(f"data/{hash[:2]}/{hash[2:]}{suffix}")
    need(content is not None, f"object {hash}{suffix} is missing")
    assert content is not None
    need(hashlib.sha1(content).hexdigest() == hash, f"object {hash}{suffix} has other bytes")
    return content


def check_signatures(
    certificate: bytes, digest: bytes, signature: bytes, fetch: Fetch, name: str, public_key: Path, now: datetime
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        crt, key, sig, text = (Path(folder, part) for part in ("crt", "key", "sig", "text"))
        crt.write_bytes(certificate)
        key.write_bytes(openssl("x509", "-in", crt, "-pubkey", "-noout", data=b"").stdout)
        sig.write_bytes(signature)
        verified = openssl("dgst", "-sha1", "-verify", key, "-signature", sig, data=digest)
        need(verified.returncode == 0, f"signature of the manifest: {verified.stderr!r}")
        fingerprint = openssl("x509", "-in", crt, "-fingerprint", "-sha1", "-noout", data=b"").stdout
        wanted = fingerprint.decode().strip().rpartition("=")[2]
        whitelist = fetch(".cvmfswhitelist")
        assert whitelist is not None
        content, digest, signature = split(whitelist)
        lines = content.decode("ascii").splitlines()
        need(len(lines[0]) == 14 and lines[0].isdigit() and lines[1][0] == "E" and lines[2] == f"N{name}", "whitelist")
        expires = datetime.strptime(lines[1][1:], "%Y%m%d%H%M%S").replace(tzinfo=UTC)
        need(expires > now, "the whitelist has expired")
        need(wanted in lines[3:], "the certificate is not in the whitelist")
        sig.write_bytes(signature)
        text.write_bytes(digest)
        # without -pkeyopt digest: the padding holds the bare characters, no DigestInfo
        raw = openssl("pkeyutl", "-verifyrecover", "-pubin", "-inkey", public_key, "-in", sig, data=b"")
        need(raw.stdout == digest, f"signature of the whitelist: {raw.stderr!r}")


class _Reader:
    def __init__(self, fetch: Fetch) -> None:
        self.fetch = fetch
        self.nodes: dict[bytes, Node] = {}
        self.catalogs: dict[bytes, str] = {}

    def catalog(self, hash: str, size: int, root: bytes) -> Counter[str]:
        """Read a catalog and those below; return the sum of its counters."""
        content = zlib.decompress(checked_object(self.fetch, hash, "C"))
        need(len(content) == size, f"size of catalog {root!r}")
        self.catalogs[root] = hash
        database = sqlite3.connect(":memory:")
        database.deserialize(content)
        database.text_factory = bytes
        need(database.execute("PRAGMA integrity_check").fetchone()[0] == b"ok", "the database is damaged")
        properties = dict(database.execute("SELECT key, value FROM properties"))
        need(properties[b"schema"] == b"2.5" and properties[b"schema_revision"] == b"7", "schema")
        need(properties.get(b"root_prefix", b"") == root, f"prefix of catalog {root!r}")
        need(root or int(properties[b"TTL"]) > 0, "TTL")
        plan = database.execute("EXPLAIN QUERY PLAN SELECT * FROM catalog WHERE parent_1 = 1 AND parent_2 = 2")
        need(b"USING INDEX" in plan.fetchone()[3], "no index of parents")
        rows: dict[tuple[int, int], list[tuple]] = {}  # type: ignore[type-arg]
        top = None
        for row in database.execute(
            "SELECT md5path_1, md5path_2, parent_1, parent_2, hardlinks, hash, size, mode, mtime, mtimens, flags, "
            "name, symlink, uid, gid, xattr FROM catalog"
        ):
            if row[:2] == key(root):
                top = row
            else:
                rows.setdefault(row[2:4], []).append(row)
        assert top is not None
        need(top[2:4] == (key(parent(root)) if root else (0, 0)), "parent of a catalog's root")
        need(top[10] == (1 | 32 if root else 1), "flags of a catalog's root")
        chunks: dict[tuple[int, int], list[tuple[int, int, bytes]]] = {}
        for one, two, offset, length, sha1 in database.execute(
            "SELECT md5path_1, md5path_2, offset, size, hash FROM chunks ORDER BY offset"
        ):
            chunks.setdefault((one, two), []).append((offset, length, sha1))
        nested = {path: (sha1.decode(), size) for path, sha1, size in
                  database.execute("SELECT path, sha1, size FROM nested_catalogs")}  # fmt: skip
        need(database.execute("SELECT COUNT(*) FROM bind_mountpoints").fetchone() == (0,), "bind mountpoints")
        own: Counter[str] = Counter()
        crossings: set[bytes] = set()
        self._folder(root, top, rows, chunks, own, crossings)
        need(crossings == set(nested), f"nested catalogs of {root!r}: {crossings ^ set(nested)}")
        need(not chunks, "chunks of no file")
        need(not rows, f"rows without a folder: {rows}")
        if root:
            need(root + b"/.cvmfscatalog" in self.nodes, f"no marker in {root!r}")
            need(self.nodes.pop(root + b"/.cvmfscatalog").size == 0, "marker")
        below: Counter[str] = Counter()
        for path in sorted(crossings):
            before = self.nodes[path]
            below += self.catalog(*nested[path], path)
            need(self.nodes[path] == before, f"the two rows of {path!r} differ")
        counted = {name.decode(): value for name, value in database.execute("SELECT counter, value FROM statistics")}
        need(set(counted) == COUNTERS, "names of counters")
        for name in COUNTERS:
            prefix, _, plain = name.partition("_")
            expected = own[plain] if prefix == "self" else below[plain]
            need(counted[name] == expected, f"{name} of {root!r} is {counted[name]}, not {expected}")
        return own + below

    def _folder(self, path, row, rows, chunks, own, crossings) -> None:  # type: ignore[no-untyped-def]
        flags, mode = row[10], row[7]
        need(stat.S_ISDIR(mode) and flags & 1 and row[5] is None and row[15] is None and row[12] == b"", "a folder")
        need(row[11] == path.rpartition(b"/")[2], "name")
        self.nodes[path] = Node(True, 0, row[8] * 10**9 + row[9], mode)
        own["dir"] += 1
        if flags & 2:
            need(flags == 3 and key(path) not in rows, "a crossing has no children in its parent's catalog")
            own["nested"] += 1
            crossings.add(path)
            return
        children = rows.pop(key(path), [])
        names = [child[11] for child in children]
        need(len(set(names)) == len(names), f"a name twice in {path!r}")
        need(row[4] == 2 + sum(bool(child[10] & 1) for child in children), f"links of {path!r}")
        for child in children:
            below = path + b"/" + child[11]
            need(child[:2] == key(below) and 0 < len(child[11]) <= 255 and b"/" not in child[11], f"key of {below!r}")
            need(0 <= child[9] < 10**9, "nanoseconds")
            if child[10] & 1:
                self._folder(below, child, rows, chunks, own, crossings)
            else:
                self._file(below, child, chunks.pop(key(below), []), own)

    def _file(self, path, row, chunks, own) -> None:  # type: ignore[no-untyped-def]
        flags, sha1, size, mode = row[10], row[5], row[6], row[7]
        need(stat.S_ISREG(mode) and row[4] == 1 and row[12] == b"" and row[15] is None, "a file")
        own["regular"] += 1
        own["file_size"] += size
        node = Node(False, size, row[8] * 10**9 + row[9], mode)
        if flags == 4 + 64 + 2048:
            need(sha1 is None and chunks, "a chunked file has chunks and no hash of its own")
            own["chunked"] += 1
            own["chunks"] += len(chunks)
            own["chunked_size"] += size
            at = 0
            for offset, length, piece in chunks:
                need(offset == at and length > 0 and len(piece) == 20, f"chunks of {path!r}")
                node.pieces.append((offset, length, f"data/{piece.hex()[:2]}/{piece.hex()[2:]}P"))
                at += length
            need(at == size, f"chunks of {path!r} don't add up")
        else:
            need(flags == 4 + 2048 and len(sha1) == 20 and not chunks, "a whole file has a hash and no chunks")
            node.pieces.append((0, size, f"data/{sha1.hex()[:2]}/{sha1.hex()[2:]}"))
        self.nodes[path] = node


def key(path: bytes) -> tuple[int, int]:
    one, two = struct.unpack("<qq", hashlib.md5(path).digest())
    return one, two


def parent(path: bytes) -> bytes:
    return path[: path.rindex(b"/")]


def content_of(fetch: Fetch, node: Node) -> bytes:
    """Read a file as a client does: each piece, its hash and length compared."""
    parts = []
    for _, length, url in node.pieces:
        content = fetch(url)
        need(content is not None, f"{url} is missing")
        assert content is not None
        hash = url.replace("data", "").replace("/", "").removesuffix("P")
        need(len(content) == length and hashlib.sha1(content).hexdigest() == hash, f"{url} has other bytes")
        parts.append(content)
    return b"".join(parts)


def from_folder(folder: Path) -> Fetch:
    def fetch(url: str) -> bytes | None:
        path = folder / url
        return path.read_bytes() if path.is_file() else None

    return fetch
