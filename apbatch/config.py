"""Where state lives and which services are used: one small file of settings, `conf/apbatch.yaml` by default.

A URL in the settings may name a development server by ``{hdfs}``, ``{cassandra}``, ``{postgres}``, ``{spark}``,
``{yarn}`` or ``{afs}``; the address is the one that ``apbatch cluster up`` wrote down. Production settings carry plain
URLs.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, field_validator

from apbatch.errors import ServerError
from apbatch.yamlfile import load_model

_NAME = re.compile(r"\{(\w+)\}")
#: URL of a catalogue, or of a server, that counts more than the settings.
CATALOGUE_VARIABLE = "APBATCH_CATALOGUE"
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def home() -> Path:
    """Return the folder of all state: ``$APBATCH_HOME`` or the platform's data folder."""
    return Path(os.environ.get("APBATCH_HOME") or platformdirs.user_data_dir("apbatch")).absolute()


def cache() -> Path:
    """Return the folder of what can be made again (server jars, wheels, particle banks): ``$APBATCH_CACHE``."""
    return Path(os.environ.get("APBATCH_CACHE") or platformdirs.user_cache_dir("apbatch")).absolute()


class Section(BaseModel):
    """Base of every section of settings: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)


class SparkSettings(Section):
    """How Spark is reached, and what it is given.

    Attributes
    ----------
    master : str
        ``local[N]``, ``spark://HOST:PORT`` or ``yarn``.
    hadoop_conf : str, optional
        Folder of Hadoop's configuration, for YARN. By default ``$HADOOP_CONF_DIR``.
    ship : bool or ``auto``
        Whether workers are given this program and the packages it needs, so that they need only Python. `auto`:
        unless Spark is local, or its workers run this very Python on this machine.
    worker_python : str, optional
        Python of the workers, of the same minor version as here.
    ui : bool or ``auto``
        Whether a page shows the job while it runs; `auto`: in a terminal and on clusters.
    event_log : str, bool or ``auto``
        Folder, or URL of one, that takes Spark's event logs, from which the history server shows jobs that have
        ended; true stands for ``$APBATCH_HOME/spark/events``, and so does `auto` on clusters.
    """

    master: str = "local[*]"
    hadoop_conf: str | None = None
    ship: bool | Literal["auto"] = "auto"
    worker_python: str | None = None
    ui: bool | Literal["auto"] = "auto"
    event_log: bool | str = "auto"
    driver_memory: str = "1g"
    executor_memory: str = "1g"
    conf: dict[str, str] = Field(default_factory=dict)


class TrainingSettings(Section):
    """What trains networks, and where.

    Attributes
    ----------
    collective : str
        How ranks are run: ``auto`` takes Horovod where it is built and one process elsewhere.
    backend : str
        Of Keras; ``torch`` in one process.
    device : str
        ``auto`` takes a graphics processor where the back-end finds one.
    mixed_precision : bool
        Compute in bfloat16: for graphics processors.
    """

    collective: Literal["auto", "single", "horovod"] = "auto"
    ranks: int = Field(default=2, ge=1)
    backend: Literal["tensorflow", "torch"] = "tensorflow"
    device: Literal["auto", "cpu", "gpu"] = "auto"
    mixed_precision: bool = False

    def network(self) -> dict[str, Any]:
        """Return what a specification of a training takes from here."""
        return self.model_dump(include={"backend", "device", "mixed_precision"})

    def inputs(self, ranks: int) -> dict[str, Any]:
        """Return what decides the scores of `ranks` ranks beyond rounding: one and two give equal bits."""
        other = self.model_dump(include={"backend", "mixed_precision"}, exclude_defaults=True)
        return {"ranks": max(2, ranks), **other}


class OidcSettings(Section):
    """An OpenID provider whose tokens are taken.

    Attributes
    ----------
    issuer : str
        Its URL, as its tokens name it; ``http`` only on this machine.
    audience : str
        What tokens for this service name.
    keys : str, optional
        URL of its keys; by default the one that its configuration names.
    algorithms : tuple of str
        Signatures that are taken: asymmetric ones only.
    name_claim, groups_claim : str
        Claims with the user's name and groups.
    leeway_s : float
        By how much clocks may differ.
    """

    issuer: str
    audience: str
    keys: str | None = None
    algorithms: tuple[str, ...] = ("RS256", "ES256")
    name_claim: str = "sub"
    groups_claim: str = "groups"
    leeway_s: float = Field(default=10, ge=0, le=300)

    @field_validator("issuer", "keys")
    @classmethod
    def _safe(cls, url: str | None) -> str | None:
        if url is not None:
            parts = urlsplit(url)
            if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
                raise ValueError(f"'{url}' is not an https URL")
        return url

    @field_validator("algorithms")
    @classmethod
    def _asymmetric(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        allowed = {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
        if not names or set(names) - allowed:
            raise ValueError(f"algorithms are among {', '.join(sorted(allowed))}")
        return names


class OaiSettings(Section):
    """How the service presents itself to harvesters (OAI-PMH).

    Attributes
    ----------
    name : str
        Of the repository.
    admin : str
        Address of electronic mail; by default ``admin`` at the namespace.
    namespace : str
        Of identifiers, a domain name; by default the first of the service's names. It must stay as it is.
    page : int
        Records of an answer.
    """

    name: str = "apbatch"
    admin: str = Field(default="", pattern=r"^(\S+@(\S+\.)+\S+)?$")
    namespace: str = Field(default="", pattern=r"^([A-Za-z][A-Za-z0-9-]*(\.[A-Za-z][A-Za-z0-9-]*)+)?$")
    page: int = Field(default=200, ge=1, le=1000)


class ServiceSettings(Section):
    """How the service serves: the section `service` of the settings.

    Attributes
    ----------
    policy : str, optional
        File of the policy, relative to the file of settings; by default the one that the catalogue holds.
    names : tuple of str
        Names under which the service is reached, besides those of the loopback interface.
    url : str, optional
        Address under which clients reach the service, where a proxy stands before it; by default as they ask.
    requests_per_second : float
        Of one client, in the long run; 0: no limit.
    burst : int
        Requests of one client at once.
    followers : int
        Clients that follow the feed at the same time.
    oidc : OidcSettings, optional
    oai : OaiSettings
    """

    policy: str | None = None
    names: tuple[str, ...] = ()
    url: str | None = Field(default=None, pattern=r"^https?://[^/?#]+(/[^?#]*)?$")
    requests_per_second: float = Field(default=50, ge=0)
    burst: int = Field(default=500, ge=1)
    followers: int = Field(default=200, ge=1)
    oidc: OidcSettings | None = None
    oai: OaiSettings = OaiSettings()


class Settings(Section):
    """All settings, with addresses filled in."""

    catalogue: str = "sqlite:///{home}/catalogue.sqlite"
    events: str = "file://{home}/events"
    store: str = "file://{home}/store"
    spark: SparkSettings = SparkSettings()
    training: TrainingSettings = TrainingSettings()
    service: ServiceSettings = ServiceSettings()


def event_logs() -> Path:
    """Return the folder of Spark's event logs, which the development history server reads."""
    return home() / "spark" / "events"


def endpoints_file() -> Path:
    """Return the file in which ``apbatch cluster up`` keeps the addresses of the running servers."""
    return home() / "cluster" / "endpoints.json"


def endpoints() -> dict[str, str]:
    """Return the addresses of the development servers that are up, by name (`hdfs`, `cassandra`, `spark`, …)."""
    try:
        content: dict[str, str] = json.loads(endpoints_file().read_text())
    except FileNotFoundError:
        return {}
    return content


def fill_in(text: str) -> str:
    """Replace ``{home}`` and the names of servers in `text` by their addresses.

    Raises
    ------
    ServerError
        If a named server is not up.
    """
    require_up(text)
    known = {"home": str(home()), **endpoints()}
    return _NAME.sub(lambda match: known[match[1]], text)


def require_up(*texts: str) -> None:
    """Make sure that every server that is named by ``{NAME}`` is up.

    Raises
    ------
    ServerError
        With all that are not.
    """
    wanted = dict.fromkeys(match[1] for text in texts for match in _NAME.finditer(text))
    missing = [name for name in wanted if name not in {"home", *endpoints()}]
    if missing:
        names = ", ".join(f"'{name}'" for name in missing)
        what = f"the server {names} is not up" if len(missing) == 1 else f"the servers {names} are not up"
        raise ServerError(what, remedy=f"apbatch cluster up {' '.join(missing)}")


def absolute_path(path: str, folder: Path) -> Path:
    """Return a path from the root, without ``..``; a relative one lies in `folder`, ``~`` is the home folder."""
    whole = (folder / Path(path).expanduser()).absolute()
    return whole.resolve() if ".." in whole.parts else whole  # what '..' means, links included, the system says


def file_url(path: str, folder: Path) -> str:
    """Return the URL of a path; a URL has no current folder, so a relative path is resolved at once."""
    return f"file://{absolute_path(path, folder)}"


def load_settings(path: Path | None = None) -> Settings:
    """Read the settings at `path` (or ``$APBATCH_CONFIG``, or the defaults) and fill in the addresses.

    Raises
    ------
    NotFoundError, UsageError
        For a file that is missing or wrong.
    ServerError
        If the settings name a development server that is not up.
    """
    if path is None and os.environ.get("APBATCH_CONFIG"):
        path = Path(os.environ["APBATCH_CONFIG"])
    settings = load_model(path, Settings) if path else Settings()
    if catalogue := os.environ.get(CATALOGUE_VARIABLE):
        settings = settings.model_copy(update={"catalogue": catalogue})
    folder = path.absolute().parent if path else Path.cwd()
    addresses = {name: getattr(settings.spark, name) for name in ("master", "hadoop_conf", "event_log")}
    texts = [text for text in addresses.values() if isinstance(text, str)]
    require_up(settings.catalogue, settings.events, settings.store, *texts)  # all that are missing, at once
    filled = {name: fill_in(text) for name, text in addresses.items() if isinstance(text, str)}
    spark = settings.spark.model_copy(update=filled)
    stores = {"events": fill_in(settings.events), "store": fill_in(settings.store)}
    urls = {name: text if "://" in text else file_url(text, folder) for name, text in stores.items()}
    service = settings.service
    if service.policy:
        service = service.model_copy(update={"policy": str(absolute_path(service.policy, folder))})
    sections = {"spark": spark, "service": service}
    return settings.model_copy(update={"catalogue": fill_in(settings.catalogue), **urls, **sections})
