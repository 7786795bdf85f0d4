"""The merged tree: which name each holding of a place gets. Pure, so that every back-end settles alike."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from apbatch.index.files import VISIBLE, State


@dataclass(frozen=True, slots=True)
class Holding:
    """What settling needs of one file at a place."""

    path: str
    site: str
    experiment: str
    size: int
    checksum: str
    state: State


def settle(
    place: str, holdings: Iterable[Holding], preferred: Collection[str], is_folder: bool = False
) -> dict[str, tuple[str | None, int]]:
    """Return, by path, the name of each holding in the merged tree and its number among those of the same content.

    The holdings of one content (and experiment) are one entry; number 0 stands for it in queries. Several contents are
    a conflict: each shows as ``PLACE@SITE``, and the plain name goes to the preferred site if exactly one content is
    there. A folder of the same name takes the plain name. A listed file, whose content nobody read, counts as a source
    of a content of its own size. Missing and quarantined files have no name. The result depends on the holdings alone,
    not on their order: settling again changes nothing.

    Parameters
    ----------
    place : str
        Path in the merged tree.
    holdings : iterable of Holding
        All files of all sites that want this place.
    preferred : collection of str
        Names of preferred sites.
    is_folder : bool
        Whether the merged tree has a folder of this name.
    """
    names: dict[str, tuple[str | None, int]] = {}
    groups: dict[tuple[str, str], list[Holding]] = {}
    rank = {True: 0, False: 1}
    ordered = sorted(
        holdings, key=lambda one: (rank[one.state is State.REGISTERED], rank[one.site in preferred], one.site, one.path)
    )
    for holding in ordered:
        if holding.state not in VISIBLE:
            names[holding.path] = (None, 0)
            continue
        groups.setdefault(_content_of(holding, groups), []).append(holding)
    contents = list(groups.values())
    if len(contents) == 1 and not is_folder:
        plain = contents[0]
    else:
        at_preferred = [group for group in contents if any(one.site in preferred for one in group)]
        plain = at_preferred[0] if len(at_preferred) == 1 and not is_folder else []
    names_in_use: set[str] = set()
    for group in sorted(contents, key=lambda group: (group[0].site, group[0].path)):
        name = place if group is plain else _free(f"{place}@{group[0].site}", names_in_use)
        names_in_use.add(name)
        names.update({one.path: (name, number) for number, one in enumerate(group)})
    return names


def _content_of(holding: Holding, groups: dict[tuple[str, str], list[Holding]]) -> tuple[str, str]:
    if holding.state is not State.LISTED and holding.checksum:
        return holding.experiment, holding.checksum
    for content, group in groups.items():
        if group[0].size == holding.size and content[0] == holding.experiment:
            return content
    return holding.experiment, f"unread {holding.path}"


def _free(name: str, names_in_use: set[str]) -> str:
    number = 1
    free = name
    while free in names_in_use:
        number += 1
        free = f"{name}~{number}"
    return free


def parent_of(path: str) -> str:
    """Return the folder of a path; the root is the empty text."""
    return path.rpartition("/")[0]


def folder_of(path: str) -> str:
    """Return a path of the merged tree without a slash at its end; the root is the empty text."""
    path = path.strip("/")
    return f"/{path}" if path else ""


def ancestors(folders: Iterable[str]) -> Iterator[str]:
    """Yield folders and all that they lie in, each once, the root left out."""
    visited: set[str] = set()
    for folder in folders:
        while folder and folder not in visited:
            visited.add(folder)
            yield folder
            folder = parent_of(folder)


def names_at(place: str, site: str = "") -> Iterator[str]:
    """Yield the names that a file may have in the merged tree, the likeliest first.

    Parameters
    ----------
    place : str
        That the file wants.
    site : str, optional
        In whose name it shows where sites hold different content at that place.
    """
    yield place
    if site:
        yield f"{place}@{site}"
        for number in range(2, 10):
            yield f"{place}@{site}~{number}"
