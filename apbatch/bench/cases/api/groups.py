"""The groups of the suite: services over the catalogues of the run, and what is asked of them."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

from apbatch.bench.cases.api.calls import get_groups, search_group
from apbatch.bench.cases.api.load import client_groups, load_group
from apbatch.bench.cases.api.page import page_groups
from apbatch.bench.cases.api.service import ServiceProcess
from apbatch.bench.cases.api.streams import memory_groups, rate_groups
from apbatch.bench.cases.catalogue.records import synthetic_records
from apbatch.bench.cases.peers import SQLITE, catalogue_urls, catalogues
from apbatch.bench.runner import Group
from apbatch.bench.suite import Setting
from apbatch.client.local import LocalTransport
from apbatch.client.remote import RemoteTransport
from apbatch.config import Settings
from apbatch.errors import ApbatchError

_PACKAGES = ("fastapi", "strawberry", "uvicorn")


def api_groups(setting: Setting) -> Iterator[Group]:
    """Yield the groups of the suite; none, with the reason, where the service's packages are missing.

    Gets, searches and the page's search are asked of every back-end of the run, all else of SQLite.
    """
    if missing := [name for name in _PACKAGES if importlib.util.find_spec(name) is None]:
        setting.left_out["REST"] = f"{', '.join(missing)} is missing (pip install 'apbatch[api]')"
        return
    size, folder = setting.size, setting.scratch.absolute() / "api"
    records = synthetic_records(size.records)
    urls = catalogue_urls(setting, "api")
    services: dict[str, ServiceProcess] = {}
    for peer, catalogue in catalogues(setting, urls).items():
        catalogue.upsert(records)
        services[peer] = ServiceProcess(urls[peer], folder / peer.lower())
        setting.at_end.callback(services[peer].stop)
    for peer, service in list(services.items()):
        try:
            service.wait_until_up()
        except ApbatchError as error:
            setting.left_out[f"REST, {peer}"] = str(error)
            del services[peer]
    local = {peer: LocalTransport(Settings(catalogue=urls[peer])) for peer in services}
    remote = {peer: RemoteTransport(service.url) for peer, service in services.items()}
    for transport in (*local.values(), *remote.values()):
        setting.at_end.callback(transport.close)
    service = services[SQLITE]
    yield from get_groups(size.lookups, records, local, remote)
    yield search_group(records, remote)
    yield from rate_groups(records, local[SQLITE], remote[SQLITE])
    yield from memory_groups(len(records), urls[SQLITE], folder, setting.at_end.callback)
    yield load_group(size, records, service)
    yield from client_groups(size, records, service)
    yield from page_groups(setting, records, service, services)
