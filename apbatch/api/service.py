"""What one service holds, and how a request gets its door to the catalogue."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, cast

from fastapi import Depends, Query, Request

from apbatch.access.guard import Guard
from apbatch.access.opening import Files
from apbatch.access.policy import Policy
from apbatch.access.principals import Principal
from apbatch.api.identity import Identity
from apbatch.api.limits import FeedPlaces, Places
from apbatch.config import ServiceSettings
from apbatch.errors import NotFoundError
from apbatch.index.catalogue import Catalogue
from apbatch.index.events.store import EventStore

#: Role of those who may see jobs and reports besides the owner.
OPERATOR = "operator"
#: Rows of a page of JSON: by default, and at most.
FEW, MANY = 100, 10_000


@dataclass
class Service:
    """Everything that answers stand on.

    Attributes
    ----------
    catalogue, events, policy
        Only `door` uses them.
    files : callable, optional
        Opens an entry of the merged tree for somebody.
    home : Path
        Where jobs and reports are.
    draining : threading.Event
        Set when the service is about to end: endless answers end.
    """

    catalogue: Catalogue
    events: EventStore | None
    policy: Policy
    identity: Identity
    home: Path
    settings: ServiceSettings = field(default_factory=ServiceSettings)
    files: Files | None = None

    def __post_init__(self) -> None:
        self.followers = Places(self.settings.followers)
        self.feed_places = FeedPlaces()
        self.draining = threading.Event()

    def door(self, who: Principal) -> Guard:
        """Return the catalogue as somebody may see it."""
        return Guard(self.catalogue, self.events, self.policy, who)


def service_of(request: Request) -> Service:
    """Return the service that answers a request."""
    return cast(Service, request.app.state.service)


async def _who(request: Request) -> Principal:
    return cast(Principal, request.scope["state"]["asker"].principal)


async def _door(request: Request) -> Guard:
    return service_of(request).door(await _who(request))


async def _events_door(request: Request) -> Guard:
    if service_of(request).events is None:
        raise NotFoundError("this service has no events")
    return await _door(request)


Who = Annotated[Principal, Depends(_who)]
Door = Annotated[Guard, Depends(_door)]
EventsDoor = Annotated[Guard, Depends(_events_door)]

Condition = Annotated[
    str,
    Query(
        max_length=20_000,
        description="A query of attributes; empty for everything.",
        examples=["experiment = 'TAIGA' and events > 1000 order by night desc"],
    ),
]
Columns = Annotated[
    str, Query(max_length=4000, description="Attributes, separated by commas; * for all.", examples=["path,size,night"])
]
Cursor = Annotated[str | None, Query(max_length=20_000, description="Of the page before, as it came with it.")]
Attribute = Annotated[str, Query(max_length=48, description="Name of an attribute.", examples=["size"])]
By = Annotated[str, Query(max_length=48, description="Attribute by whose values to count.")]
Bins = Annotated[int, Query(ge=1, le=500, description="Bins at most.")]
PageSize = Annotated[int, Query(ge=1, le=MANY, description="Rows of a page.")]
FormName = Annotated[
    str | None, Query(alias="format", max_length=20, description="json, ndjson, csv, arrow or parquet; else by Accept.")
]
PathOf = Annotated[str, Query(max_length=8192, description="In the merged tree.", examples=["/taiga/raw/run.dat"])]
