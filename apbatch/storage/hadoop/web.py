"""What a NameNode's web interface tells that its other one does not: where that interface is, and where blocks lie."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote, urlsplit
from xml.etree import ElementTree

from apbatch.config import endpoints
from apbatch.errors import NotFoundError, ServerError

_SITE_FILES = ("core-site.xml", "hdfs-site.xml")


def web_address(authority: str) -> str | None:
    """Return ``host:port`` of the web interface of a NameNode, if it is known here.

    It is that of the development server, or ``dfs.namenode.http-address`` of the configuration in ``$HADOOP_CONF_DIR``
    if that is this NameNode's.

    Parameters
    ----------
    authority : str
        ``host:port``, or name, of the NameNode.
    """
    addresses = endpoints()
    if urlsplit(addresses.get("hdfs", "")).netloc == authority:
        return urlsplit(addresses.get("webhdfs", "")).netloc or None
    settings = _configuration()
    if urlsplit(settings.get("fs.defaultFS", "")).netloc == authority:
        return settings.get("dfs.namenode.http-address") or None
    return None


def _configuration() -> dict[str, str]:
    """Return the settings of the files of `$HADOOP_CONF_DIR`; none where there are no sound files."""
    folder, settings = os.environ.get("HADOOP_CONF_DIR"), dict[str, str]()
    for name in _SITE_FILES if folder else ():
        try:
            tree = ElementTree.parse(Path(folder or "") / name)
        except (OSError, ElementTree.ParseError):
            continue
        for one in tree.iterfind("property"):
            settings[(one.findtext("name") or "").strip()] = (one.findtext("value") or "").strip()
    return settings


def web_block_hosts(web: str, hdfs_path: str, limit_s: float) -> list[list[str]]:
    """Ask WebHDFS for the hosts of each block of a file.

    Parameters
    ----------
    web : str
        Host and port of the NameNode's web interface.
    hdfs_path : str
        Absolute path in HDFS.
    limit_s : float
        Seconds.

    Raises
    ------
    NotFoundError, ServerError
    """
    import requests

    url = f"http://{web}/webhdfs/v1{quote(hdfs_path)}"
    try:
        answer = requests.get(url, params={"op": "GETFILEBLOCKLOCATIONS"}, timeout=limit_s)
    except requests.RequestException as error:
        raise ServerError(f"WebHDFS does not answer: {error}", where=url) from error
    if answer.status_code == 404:
        raise NotFoundError("no such file", where=url)
    if not answer.ok:
        raise ServerError(f"WebHDFS answers {answer.status_code}", where=url)
    blocks = answer.json()["BlockLocations"]["BlockLocation"]
    return [list(block["hosts"]) for block in blocks]
