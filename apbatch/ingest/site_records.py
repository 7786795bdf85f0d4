"""What is registered of a site when the site goes or gets another name."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

from pydantic import ValidationError

from apbatch.errors import UsageError
from apbatch.index.catalogue import Catalogue
from apbatch.index.leases import leased
from apbatch.ingest.records import as_described
from apbatch.ingest.scan import lease_name
from apbatch.ingest.site import Site
from apbatch.ingest.sites import keep_site, load_site, publish_site, remove_site, sites

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
    with leased(catalogue, lease_name(site.name)) as keeper:
        while paths := [record.path for record in islice(catalogue.of_site(site.name), _BATCH)]:
            keeper.keep()
            catalogue.remove(paths)
            files += len(paths)
    return files


def rename_site(catalogue: Catalogue, name: str, to: str) -> tuple[Site, int]:
    """Give a site another name; records of files and replicas follow, and every file stays where it is.

    Killed at any time, the same call goes on. Replicas keep their URLs, which have the old name in them.

    Parameters
    ----------
    catalogue : Catalogue
    name, to : str
        The name until now, and the new one.

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
    other = next((target for target in sites() if target.name == to), None)
    if to == name or (other is not None and other != renamed):
        raise UsageError(f"there is a site '{to}' already", remedy="choose another name, or remove that site first")
    files = 0
    with leased(catalogue, lease_name(name)) as keeper, leased(catalogue, lease_name(to)) as other_keeper:
        keep_site(renamed)  # first: a record must never be of a site that is not there
        publish_site(catalogue, renamed)
        while records := list(islice(catalogue.of_site(name), _BATCH)):
            keeper.keep()
            other_keeper.keep()
            # What has another path than the site gives it is left from another experiment's name: no file of today.
            moved = {
                record.path: renamed.path_of(record.source)
                for record in records
                if record.path == site.path_of(record.source)
            }
            catalogue.upsert(as_described(renamed, replace(r, site=to)) for r in records if r.path in moved)
            replicas = catalogue.replicas(moved)
            catalogue.add_replicas(replace(one, path=moved[path]) for path, all_ in replicas.items() for one in all_)
            catalogue.remove([record.path for record in records])
            files += len(moved)
        remove_site(catalogue, name)
    return renamed, files
