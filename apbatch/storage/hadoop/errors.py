"""What a NameNode's refusals mean here, whichever client met them, and what can be done about each."""

from __future__ import annotations

import re

from apbatch.cluster.hdfs import Hdfs
from apbatch.config import endpoints
from apbatch.errors import ApbatchError, NotFoundError, ServerError, UsageError
from apbatch.storage.store import RefusedError, StoreRefusedError

#: Java exceptions that are a final answer for one file.
_REFUSALS = ("InvalidPathException", "PathComponentTooLongException", "SecurityException")
_SAFE_MODE = "safe mode"
_QUOTA_FOLDER = re.compile(r"quota(?: \([^)]*\))? of (?:directory )?(/.*?) is exceeded")
_DENIED_FOLDER = re.compile(r'access=\w+, inode="(/.*?)":')


def hadoop_error(kind: str, message: str, where: str, root: str) -> ApbatchError:
    """Return the project's error for an exception of the NameNode.

    Parameters
    ----------
    kind : str
        Class of the Java exception, without its package; may be empty.
    message : str
        Its first line.
    where : str
        URL of the file that was asked for.
    root : str
        Path of the store's root in HDFS: what is refused for it, or for a folder above, is refused for every file.

    Returns
    -------
    ApbatchError
        `StoreRefusedError` if no file of the store would fare better, `RefusedError` if the answer is final for this
        file, `ServerError` if another attempt may succeed.
    """
    text = f"{kind}: {message}" if kind else message
    if kind == "FileNotFoundException":
        if "is not a file" in message:
            return UsageError("this is a folder, not a file", where=where)
        return NotFoundError("no such file or folder", where=where)
    if kind in ("ParentNotDirectoryException", "FileAlreadyExistsException"):
        return UsageError("a file or folder stands in the way", where=where)
    if kind == "SafeModeException" or (kind == "RetriableException" and _SAFE_MODE in message):
        return StoreRefusedError(
            "the NameNode is in safe mode: HDFS can only be read",
            where=where,
            remedy="wait until it leaves safe mode, or end it: hdfs dfsadmin -safemode leave",
        )
    if kind in ("NSQuotaExceededException", "DSQuotaExceededException", "QuotaByStorageTypeExceededException"):
        match = _QUOTA_FOLDER.search(message)
        option = "-setQuota" if kind == "NSQuotaExceededException" else "-setSpaceQuota"
        remedy = f"remove files there, or raise it: hdfs dfsadmin {option} N {match[1] if match else 'FOLDER'}"
        return _refusal(match, root)(text, where=where, remedy=remedy)
    if kind == "AccessControlException":
        match = _DENIED_FOLDER.search(message)
        folder = match[1] if match else "the folder"
        return _refusal(match, root)(
            text, where=where, remedy=f"have {folder} given to you (hdfs dfs -chown), or set HADOOP_USER_NAME"
        )
    return (RefusedError if kind in _REFUSALS else ServerError)(text, where=where)


def _refusal(folder: re.Match[str] | None, root: str) -> type[RefusedError]:
    """Return the kind of refusal that is due to a folder: of the whole store if the folder is its root or above."""
    if folder is not None and f"{root.rstrip('/')}/".startswith(f"{folder[1].rstrip('/')}/"):
        return StoreRefusedError
    return RefusedError


def start_remedy(authority: str) -> str:
    """Return what to do about a NameNode at ``HOST:PORT`` that does not answer.

    Only the development server of this state folder can be started from here.
    """
    addresses = {**Hdfs().addresses(), **endpoints()}
    if authority in {addresses[name].partition("://")[2] for name in ("hdfs", "webhdfs")}:
        return "apbatch cluster up hdfs"
    return f"is {authority} the right address, and is that NameNode up?"
