"""The six verbs: what each answers, over what the guard lets the harvester see."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from apbatch.access.guard import Guard
from apbatch.api.oai import datacite as datacite_format
from apbatch.api.oai import dublin_core as dublin_core_format
from apbatch.api.oai.datestamps import Datestamps, Now
from apbatch.api.oai.described import Description, describe
from apbatch.api.oai.markup import element, wrapped
from apbatch.api.oai.naming import check_set, identifier_of, is_in, path_of, set_name, sets_of
from apbatch.api.oai.requests import ProtocolError, Request, read_span, written_moment
from apbatch.api.oai.resumption import Position, read_token, write_token
from apbatch.config import OaiSettings
from apbatch.formats.oai.namespaces import DATACITE, OAI_DC, OAI_IDENTIFIER, XSI
from apbatch.index.changes import Change, ChangeKind
from apbatch.index.files import VISIBLE, FileRecord
from apbatch.index.query import And, Compare, In, Search

#: Changes that are read at a time.
_CHANGES = 1000
#: What the name of a format is made of, by the schema of the protocol.
_PREFIX = re.compile(r"[A-Za-z0-9\-_.!~*'()]{1,100}")
_OF_FILES = (ChangeKind.NEW, ChangeKind.CHANGED, ChangeKind.GONE)
_SEEN = In("state", tuple(map(str, VISIBLE)))


@dataclass(frozen=True, slots=True)
class Format:
    """A metadata format.

    Attributes
    ----------
    schema, namespace : str
    write : callable
        Makes the element.
    """

    schema: str
    namespace: str
    write: Callable[[Description], str]


FORMATS = {
    "oai_dc": Format(dublin_core_format.SCHEMA, OAI_DC, dublin_core_format.dublin_core),
    "datacite": Format(datacite_format.SCHEMA, DATACITE, datacite_format.datacite),
}


@dataclass(frozen=True, slots=True)
class Repository:
    """What answers stand on.

    Attributes
    ----------
    door : Guard
    datestamps : Datestamps
    now : Now
        The catalogue's state when the request came.
    settings : OaiSettings
    namespace : str
        Of identifiers.
    root : str
        URL of the service.
    """

    door: Guard
    datestamps: Datestamps
    now: Now
    settings: OaiSettings
    namespace: str
    root: str

    @property
    def address(self) -> str:
        """URL at which the protocol is spoken."""
        return f"{self.root}/oai"


def answer(repository: Repository, request: Request) -> str:
    """Return the element with a request's answer.

    Raises
    ------
    ProtocolError
    """
    return _VERBS[request.verb](repository, request)


def _identify(repository: Repository, request: Request) -> str:
    settings, namespace = repository.settings, repository.namespace
    sample = identifier_of(namespace, "/experiment/site/run.dat")
    scheme = wrapped(
        "oai-identifier",
        element("scheme", "oai")
        + element("repositoryIdentifier", namespace)
        + element("delimiter", ":")
        + element("sampleIdentifier", sample),
        **{"xmlns": OAI_IDENTIFIER, "xmlns:xsi": XSI, "xsi:schemaLocation": f"{OAI_IDENTIFIER} {OAI_IDENTIFIER}.xsd"},
    )
    return wrapped(
        "Identify",
        element("repositoryName", settings.name)
        + element("baseURL", repository.address)
        + element("protocolVersion", "2.0")
        + element("adminEmail", settings.admin or f"admin@{namespace}")
        + element("earliestDatestamp", written_moment(repository.datestamps.earliest()))
        + element("deletedRecord", "transient")
        + element("granularity", "YYYY-MM-DDThh:mm:ssZ")
        + wrapped("description", scheme),
    )


def _formats(repository: Repository, request: Request) -> str:
    if "identifier" in request.arguments:
        _record(repository, request.arguments["identifier"])
    return wrapped(
        "ListMetadataFormats",
        "".join(
            wrapped(
                "metadataFormat",
                element("metadataPrefix", name)
                + element("schema", one.schema)
                + element("metadataNamespace", one.namespace),
            )
            for name, one in FORMATS.items()
        ),
    )


def _sets(repository: Repository, request: Request) -> str:
    if "resumptionToken" in request.arguments:
        raise ProtocolError("badResumptionToken", "all sets are in one answer")
    names: dict[str, str] = {}
    for experiment, site, path in _sites(repository.door):
        folder = set_name(path.split("/", 3)[1])
        names[folder] = experiment or folder
        names[sets_of(path)[0]] = f"{experiment}, site {site}"
    if not names:
        raise ProtocolError("noSetHierarchy", "there is nothing that may be seen")
    return wrapped(
        "ListSets",
        "".join(
            wrapped("set", element("setSpec", name) + element("setName", title))
            for name, title in sorted(names.items())
        ),
    )


def _sites(door: Guard) -> Iterator[tuple[str, str, str]]:
    """Yield experiment, site and one path of each site of which something may be seen."""
    for experiment in door.count(_SEEN, "experiment"):
        ours = And((_SEEN, Compare("experiment", "=", experiment)))
        for site in door.count(ours, "site"):
            one = And((ours, Compare("site", "=", site)))
            for record in door.select(Search(one, limit=1)):
                if sets_of(record.path):
                    yield experiment, site, record.path


def _get(repository: Repository, request: Request) -> str:
    prefix = _prefix(request.arguments["metadataPrefix"])
    record = _record(repository, request.arguments["identifier"])
    datestamp = repository.datestamps.of([record.revision])[0]
    return wrapped("GetRecord", _written(repository, record.path, record, datestamp, prefix))


def _record(repository: Repository, identifier: str) -> FileRecord:
    record = repository.door.get(path_of(repository.namespace, identifier))
    if record is None:
        raise ProtocolError("idDoesNotExist", "there is no such record, or it may not be seen")
    return record


def _prefix(text: str) -> str:
    if not _PREFIX.fullmatch(text):
        raise ProtocolError("badArgument", "'metadataPrefix' is not the name of a format")
    if text not in FORMATS:
        raise ProtocolError("cannotDisseminateFormat", f"records are given as {' or '.join(FORMATS)}")
    return text


def _list(repository: Repository, request: Request) -> str:
    arguments = request.arguments
    revision = repository.now.revision
    resumed = "resumptionToken" in arguments
    if resumed:
        position = read_token(arguments["resumptionToken"], request.verb, revision)
        if position.prefix not in FORMATS:
            raise ProtocolError("badResumptionToken", "this is not a resumption token of this list")
    else:
        begin, end = read_span(arguments.get("from"), arguments.get("until"))
        set_name = check_set(arguments["set"]) if "set" in arguments else ""
        prefix = _prefix(arguments["metadataPrefix"])
        since = 0 if begin is None else repository.datestamps.last_revision(begin - 1)
        upto = revision if end is None else min(revision, repository.datestamps.last_revision(end))
        position = Position(request.verb, prefix, set_name, since, upto, bounded=end is not None)
    size = repository.settings.page
    changes = _page(repository.door, position, size + 1)
    if not changes and resumed and not position.bounded:  # all that was left changed since: it comes as it is now
        position = replace(position, upto=revision)
        changes = _page(repository.door, position, size + 1)
    if not changes and not resumed:
        raise ProtocolError("noRecordsMatch", "no record matches")
    more, changes = len(changes) > size, changes[:size]
    datestamps = repository.datestamps.of([change.revision for change in changes])
    whole = position.prefix if request.verb == "ListRecords" else None
    content = "".join(
        _written(repository, change.key, change.record, datestamp, whole)
        for change, datestamp in zip(changes, datestamps, strict=True)
    )
    if more or resumed:
        following = (
            replace(position, since=changes[-1].revision, offset=position.offset + len(changes)) if more else None
        )
        token = "" if following is None else write_token(following)
        content += element("resumptionToken", token, cursor=str(position.offset))
    return wrapped(request.verb, content)


def _page(door: Guard, position: Position, many: int) -> list[Change]:
    """Return the next changes of files of a list, each file once; memory holds one block of changes besides."""
    page: list[Change] = []
    since = position.since
    while len(page) < many and since < position.upto:
        changes, last = door.changes_read(since, _CHANGES, from_start=True)
        ours = [
            change
            for change in changes
            if change.kind in _OF_FILES and change.revision <= position.upto and is_in(change.key, position.chosen_set)
        ]
        removed = [change.key for change in ours if change.record is None]
        back = door.get_many(removed) if removed else {}  # removed, and registered again since
        page += [change for change in ours if change.record is not None or change.key not in back]
        if last == since:
            break
        since = last
    return page[:many]


def _written(repository: Repository, path: str, record: FileRecord | None, datestamp: int, prefix: str | None) -> str:
    """Return a record, or its header alone without a `prefix`."""
    deleted = record is None or record.state not in VISIBLE
    identifier = identifier_of(repository.namespace, path)
    header = wrapped(
        "header",
        element("identifier", identifier)
        + element("datestamp", written_moment(datestamp))
        + "".join(element("setSpec", one) for one in sets_of(path)),
        status="deleted" if deleted else None,
    )
    if prefix is None:
        return header
    if record is None or deleted:
        return wrapped("record", header)
    description = describe(record, identifier, repository.root, repository.settings.name)
    return wrapped("record", header + wrapped("metadata", FORMATS[prefix].write(description)))


_VERBS: dict[str, Callable[[Repository, Request], str]] = {
    "Identify": _identify,
    "ListMetadataFormats": _formats,
    "ListSets": _sets,
    "GetRecord": _get,
    "ListRecords": _list,
    "ListIdentifiers": _list,
}
