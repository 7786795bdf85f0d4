"""Sites by name: kept in this home, shared by all hosts through the catalogue."""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from blake3 import blake3

from apbatch.config import home, load_settings
from apbatch.errors import ApbatchError, NotFoundError, UsageError, nearest_word
from apbatch.index.backends import open_catalogue
from apbatch.index.catalogue import Catalogue
from apbatch.index.descriptions import Description, DescriptionKind
from apbatch.ingest.remote.client import agent_at
from apbatch.ingest.site import SITE_NAME, Site
from apbatch.localfiles import locked, write_whole
from apbatch.progress import say
from apbatch.yamlfile import dump_yaml, load_model, read_yaml, validate


def sites_folder() -> Path:
    """Return the folder in which the known sites are kept."""
    return home() / "sites"


def read_site_file(path: Path) -> Site:
    """Read a site's YAML file; its root becomes absolute: relative to the file, ``~`` and ``$VARIABLES`` expanded.

    ``{home}`` in the root is the folder of the project's state.

    Raises
    ------
    NotFoundError, UsageError
        With the line of what is wrong.
    """
    content, lines = read_yaml(path)
    if isinstance(content, dict) and isinstance(content.get("root"), str):
        line = lines.get(("root",), 1)
        root = content["root"].removeprefix("file://").replace("{home}", str(home()))
        root = os.path.expanduser(os.path.expandvars(root))  # noqa: PTH111  a root may be relative
        if missing := re.search(r"\$(\w+|\{\w+\})", root):
            raise UsageError(f"root: the variable {missing[0]} is not set", where=f"{path}:{line}")
        if root.startswith(("http://", "https://")):
            content["root"] = root.rstrip("/")
        elif not root or "://" in root or "\0" in root:
            what = "root: a folder of this machine is wanted, or the address of an agent"
            raise UsageError(what, where=f"{path}:{line}")
        else:
            content["root"] = os.path.normpath(Path(path).absolute().parent / root)
    return validate(path, content, lines, Site)


def add_site(path: Path, *, must_exist: bool = True) -> tuple[Site, str]:
    """Make the site of a YAML file known under its name.

    Returns
    -------
    site : Site
    outcome : str
        ``added``, ``changed`` (the name was known with other content) or ``unchanged``.

    Raises
    ------
    NotFoundError, UsageError
        If the file is wrong, or the root is no folder and `must_exist`.
    """
    site = read_site_file(path)
    if must_exist:
        check_root(site, where=str(path))
    target = sites_folder() / f"{site.name}.yaml"
    outcome = "added"
    if target.exists():
        try:
            outcome = "unchanged" if load_model(target, Site) == site else "changed"
        except UsageError:
            outcome = "changed"
    if outcome != "unchanged":
        keep_site(site)
    return site, outcome


def keep_site(site: Site) -> None:
    """Write the description of a site to its place, in one step."""
    write_whole(sites_folder() / f"{site.name}.yaml", text_of(site))


def text_of(site: Site) -> str:
    """Return the description of a site as YAML."""
    return dump_yaml(site.model_dump(exclude_defaults=True))  # dates stay dates


def check_root(site: Site, where: str | None = None) -> None:
    """Raise unless the root of a site is a folder that can be listed, or an agent that serves it.

    Raises
    ------
    NotFoundError, UsageError
    ServerError, FormatError
        If the agent does not answer, or what answers is none.
    """
    if site.is_remote:
        agent_at(site.root).check(site.name)
        return
    try:
        with os.scandir(site.root):
            pass
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError(
            f"the root of site '{site.name}' is not a folder: {site.root}",
            where=where,
            remedy="correct 'root' in the site's YAML file, or mount it",
        ) from error
    except OSError as error:
        raise UsageError(
            f"the root of site '{site.name}' can't be listed: {error.strerror}",
            where=site.root,
            remedy="ask for permission to read it",
        ) from error


def sites() -> list[Site]:
    """Return all known sites, by name."""
    names = sorted(path.stem for path in sites_folder().glob("*.yaml") if not path.name.startswith("."))
    return [load_site(name) for name in names]


def load_site(name: str) -> Site:
    """Return the site with this name.

    Raises
    ------
    NotFoundError
        With the nearest known name.
    """
    path = sites_folder() / f"{name}.yaml"
    if SITE_NAME.match(name) and not path.is_file():
        with suppress(ApbatchError):  # another host may have added it
            settings = load_settings()
            with open_catalogue(settings.catalogue) as catalogue:
                share_sites(catalogue, settings.catalogue)
    if not SITE_NAME.match(name) or not path.is_file():
        names = sorted(path.stem for path in sites_folder().glob("*.yaml"))
        raise NotFoundError(
            f"there is no site '{name}'",
            nearest=nearest_word(name, names),
            remedy="apbatch site list shows the known ones, apbatch site add FILE.yaml adds one",
        )
    status = path.stat()
    return _loaded(path, (status.st_mtime_ns, status.st_ino, status.st_size))


@lru_cache(maxsize=256)
def _loaded(path: Path, version: tuple[int, ...]) -> Site:
    """Read a known site, once for each version of its file: a mirror asks for it with every file."""
    return load_model(path, Site)


def resolve_site(text: str) -> Site:
    """Return the site with a name, or of a YAML file, which is added.

    Raises
    ------
    NotFoundError, UsageError
    """
    if text.endswith((".yaml", ".yml")) or "/" in text:
        return add_site(Path(text))[0]
    return load_site(text)


def remove_site(catalogue: Catalogue, name: str) -> Site:
    """Forget a site, here and in the catalogue, and return it; its files stay as they are.

    Raises
    ------
    NotFoundError
    """
    site = load_site(name)
    for kind in (DescriptionKind.SITE, DescriptionKind.APPLIED):
        catalogue.remove_description(kind, name)
    (sites_folder() / f"{name}.yaml").unlink()
    return site


def publish_site(catalogue: Catalogue, site: Site) -> None:
    """Write the description of a site into the catalogue, if another one or none is there."""
    text = text_of(site)
    description = {one.name: one for one in catalogue.descriptions(DescriptionKind.SITE)}.get(site.name)
    if description is None or (description.text, description.preferred) != (text, site.preferred):
        catalogue.put_description(Description(DescriptionKind.SITE, site.name, text, site.preferred))


def share_sites(catalogue: Catalogue, url: str) -> None:
    """Bring the sites of this home and those of the catalogue, which all hosts share, to the same.

    What changed here alone goes to the catalogue, and what changed there, or on both sides, comes from it. What both
    had in common last is kept for each catalogue, so that a site that was removed elsewhere does not come back.

    Parameters
    ----------
    catalogue : Catalogue
    url : str
        Its URL.
    """
    folder = sites_folder()
    book = folder / ".shared.json"
    with locked(folder / ".shared.lock"):
        shared = _read_book(book)
        before = shared.get(url, {})
        there = {one.name: one for one in catalogue.descriptions(DescriptionKind.SITE) if SITE_NAME.match(one.name)}
        here = {path.stem: path for path in folder.glob("*.yaml") if not path.name.startswith(".")}
        after: dict[str, str] = {}
        for name in sorted({*there, *here}):
            text = _share(catalogue, name, here.get(name), there.get(name), before.get(name))
            if text is not None:
                after[name] = _digest(text)
        if after != before:
            write_whole(book, json.dumps({**shared, url: after}, indent=1, sort_keys=True))


def _share(
    catalogue: Catalogue, name: str, path: Path | None, there: Description | None, common: str | None
) -> str | None:
    """Bring one site to the same on both sides; return its text, or None if neither has it or it can't be used."""
    site = None
    with suppress(ApbatchError, OSError):
        site = load_model(path, Site) if path is not None else None
    here = text_of(site) if site is not None else None
    if there is None:
        if path is not None and here is not None and _digest(here) == common:
            path.unlink()  # removed by another host
            return None
        if site is not None:
            publish_site(catalogue, site)
        return here
    if here == there.text:
        return here
    if site is not None and _digest(there.text) == common:
        publish_site(catalogue, site)  # changed here since
        return here
    trial = sites_folder() / f".{name}.trial"
    write_whole(trial, there.text)
    try:
        if load_model(trial, Site).name != name:
            raise UsageError("it has another name")
    except (ApbatchError, OSError) as error:
        say(f"site '{name}': what the catalogue has can't be used: {error}")
        trial.unlink()
        return None
    trial.replace(sites_folder() / f"{name}.yaml")
    return there.text


def _read_book(path: Path) -> dict[str, dict[str, str]]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _digest(text: str) -> str:
    return str(blake3(text.encode()).hexdigest())
