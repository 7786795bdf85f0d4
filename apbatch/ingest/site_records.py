"""What is registered of a site when the site goes or gets another name."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

from pydantic import ValidationError

from apbatch.errors import UsageError
from apbatch.index.catalogue import Catalogue
from apbatch.index.files import FileRecord
from apbatch.ingest.site_lock import site_lock
from apbatch.ingest.sites import Site, keep_site, load_site, remove_site, sites

_BATCH = 500


def forget_site(catalogue: Catalogue, site: Site) -> int:
    """Remove the records of a site's files, and their replicas' records, from the catalogue; return their number.

    Killed at any time, the same call goes on.

    Raises
    ------
    UsageError
        If an ingest of the site is running.
    """
    files = 0
    with site_lock(site.name):
        while paths := [record.path for record in islice(catalogue.of_site(site.name), _BATCH)]:
            catalogue.remove(paths)
            files += len(paths)
    return files


def rename_site(catalogue: Catalogue, name: str, to: str) -> tuple[Site, int]:
    """Give a site another name; records of files and replicas follow, and every file stays where it is.

    Killed at any time, the same call goes on. Replicas keep their URLs, which have the old name in them.

    Returns
    -------
    site : Site
        Under its new name.
    files : int
        How many records followed.

    Raises
    ------
    NotFoundError
        If there is no site of that name.
    UsageError
        If the new name is impossible or belongs to another site, or an ingest of the site is running.
    """
    site = load_site(name)
    try:
        renamed = Site.model_validate({**site.model_dump(), "name": to})
    except ValidationError as error:
        raise UsageError(error.errors()[0]["msg"].removeprefix("Value error, "), where=to) from None
    other = next((known for known in sites() if known.name == to), None)
    if to == name or (other is not None and other != renamed):
        raise UsageError(f"there is a site '{to}' already", remedy="choose another name, or remove that site first")
    files = 0
    with site_lock(name), site_lock(to):
        keep_site(renamed)  # first: a record must never be of a site that is not there
        while records := list(islice(catalogue.of_site(name), _BATCH)):
            # What has another path than the site gives it is left from another experiment's name: no file of today.
            moved = {record.path: renamed.path_of(record.source) for record in records
                     if record.path == site.path_of(record.source)}  # fmt: skip
            catalogue.upsert(_of_site(record, to, moved[record.path]) for record in records if record.path in moved)
            replicas = catalogue.replicas(moved)
            catalogue.add_replicas(replace(one, path=moved[path]) for path, all_ in replicas.items() for one in all_)
            catalogue.remove([record.path for record in records])
            files += len(moved)
        remove_site(name)
    return renamed, files


def _of_site(record: FileRecord, site: str, path: str) -> FileRecord:
    """Return a record under another site's name; a place of its own in the merged tree stays."""
    return replace(record, site=site, path=path, place=path if record.place == record.path else record.place)
