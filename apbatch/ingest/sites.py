"""Sites: folders of an experiment's files, described by one YAML file each and only ever read."""

from __future__ import annotations

import os
import re
import stat
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Any, BinaryIO

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from apbatch.config import home
from apbatch.errors import ApbatchError, NotFoundError, UsageError, nearest_word
from apbatch.formats.reader import Attribute, AttributeType, Scalar
from apbatch.index.files import COMMON_FIELDS, FileRecord
from apbatch.ingest.patterns import (
    PathPattern,
    compile_glob,
    compile_pattern,
    compile_regex,
    decode_path,
    encode_path,
)
from apbatch.localfiles import write_whole
from apbatch.units import unit as parse_unit
from apbatch.yamlfile import dump_yaml, load_model, read_yaml, validate

#: Fields of every file that a site may set from paths or as a constant, with their types.
FIELDS: dict[str, AttributeType] = {"run": "integer", "night": "date", "telescope": "integer", "cluster": "integer"}
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
_IDENTIFIER = re.compile(r"^[a-z][a-z0-9_]*$")


class AttributeRule(BaseModel):
    """One rule for attributes of the files of a site: a path pattern, a regular expression, a constant, or a type."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pattern: str | None = Field(default=None, description="path pattern, such as BSM{cluster:int}/{*}.{part:int}")
    regex: str | None = Field(default=None, description="regular expression with named groups")
    name: str | None = Field(default=None, description="name of the attribute that is given or declared")
    value: Scalar | None = Field(default=None, description="constant for every file")
    type: AttributeType | None = None
    unit: str | None = None
    description: str = ""

    @model_validator(mode="after")
    def _one_kind(self) -> AttributeRule:
        if sum(given is not None for given in (self.pattern, self.regex, self.name)) != 1:
            raise ValueError("give one of 'pattern', 'regex' and 'name'")
        if self.name is None and any(given is not None for given in (self.value, self.type, self.unit)):
            raise ValueError("'value', 'type' and 'unit' go with a 'name'")
        if self.unit is not None:
            parse_unit(self.unit)
        if self.pattern is not None:
            compile_pattern(self.pattern)
        if self.regex is not None:
            compile_regex(self.regex, {})
        return self


def _rules(value: Any) -> Any:
    """Take a mapping of names to constants as well as a list of rules."""
    if isinstance(value, dict):
        return [
            {"name": name, **content} if isinstance(content, dict) else {"name": name, "value": content}
            for name, content in value.items()
        ]
    return value


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Patterns = Annotated[tuple[str, ...], BeforeValidator(_listed)]


class Calibration(BaseModel):
    """Files with which the raw data of a site are calibrated, relative to its root."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    coordinates: str | None = None
    factors: str | None = None


class Site(BaseModel):
    """A site.

    Attributes
    ----------
    name : str
        By which it is known; part of the paths in the merged tree.
    experiment : str
        Experiment to which its files belong.
    root : str
        Absolute path of its folder.
    include, exclude : tuple of str
        Glob patterns on paths below the root; what matches no `include` or any `exclude` is not looked at.
    attributes : tuple of AttributeRule
    calibration : Calibration
    camera : str, optional
        Name of the camera of its raw data.
    events : bool
        Whether an ingest loads the events of its files as well.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, ignored_types=(cached_property,))

    name: str
    experiment: str
    root: str
    include: Patterns = ("**",)
    exclude: Patterns = ()
    attributes: Annotated[tuple[AttributeRule, ...], BeforeValidator(_rules)] = ()
    calibration: Calibration = Calibration()
    camera: str | None = None
    events: bool = False
    description: str = ""

    @field_validator("name")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if not _NAME.match(value):
            raise ValueError("a name is made of letters, digits, '.', '_' and '-', and starts with a letter or digit")
        return value

    @field_validator("experiment")
    @classmethod
    def _plain_experiment(cls, value: str) -> str:
        if not value.strip() or "/" in value or encode_path(value.encode()) != value or value in (".", ".."):
            raise ValueError("the name of an experiment has no '/', '%' or control characters in it")
        return value.strip()

    @field_validator("camera")
    @classmethod
    def _known_camera(cls, value: str | None) -> str | None:
        from apbatch.camera.instruments.registry import camera_named

        if value is not None:
            try:
                camera_named(value)
            except ApbatchError as error:
                raise ValueError(str(error)) from error
        return value

    @model_validator(mode="after")
    def _attributes_fit(self) -> Site:
        try:
            self.declared  # noqa: B018  computed to be checked
        except UsageError as error:
            raise ValueError(str(error)) from error
        return self

    @cached_property
    def _types(self) -> dict[str, AttributeType]:
        return {rule.name: rule.type for rule in self.attributes if rule.name is not None and rule.type is not None}

    @cached_property
    def _patterns(self) -> tuple[PathPattern, ...]:
        found = []
        for rule in self.attributes:
            if rule.pattern is not None:
                pattern = compile_pattern(rule.pattern)
                types = {name: self._types.get(name, FIELDS.get(name, kind)) for name, kind in pattern.types.items()}
                found.append(PathPattern(pattern.expression, types, pattern.dates))
            elif rule.regex is not None:
                found.append(compile_regex(rule.regex, {**FIELDS, **self._types}))
        return tuple(found)

    @cached_property
    def declared(self) -> tuple[Attribute, ...]:
        """Attributes that the site adds to those of the formats.

        Raises
        ------
        UsageError
            If one has no valid name, the name of another field, or a constant of another type.
        """
        named = {rule.name: rule for rule in self.attributes if rule.name is not None}
        types: dict[str, AttributeType] = {}
        for pattern in self._patterns:
            for name, kind in pattern.types.items():
                if types.setdefault(name, kind) != kind:
                    raise UsageError(f"attribute '{name}' is once {types[name]} and once {kind}")
        for name, rule in named.items():
            types[name] = rule.type or types.get(name) or FIELDS.get(name) or _type_of(rule.value)
            if rule.value is not None and not _is_of(rule.value, types[name]):
                raise UsageError(f"the value '{rule.value}' of '{name}' is not of type {types[name]}")
        for name, kind in types.items():
            if not _IDENTIFIER.match(name):
                raise UsageError(f"'{name}' is no name of an attribute: small letters, digits and '_', a letter first")
            if name in FIELDS and kind != FIELDS[name]:
                raise UsageError(f"'{name}' must be of type {FIELDS[name]}, not {kind}")
            if name in COMMON_FIELDS and name not in FIELDS:
                raise UsageError(f"'{name}' is a field of every file and can't be set by a site")
        return tuple(
            Attribute(
                name,
                kind,
                named[name].description if name in named else f"From the paths of site {self.name}.",
                named[name].unit if name in named else None,
            )
            for name, kind in types.items()
            if name not in FIELDS
        )

    def values(self, source: str) -> dict[str, Scalar]:
        """Return what the site says of the file at `source`: attributes and values of `FIELDS`; paths win."""
        found: dict[str, Scalar] = {
            rule.name: float(rule.value) if rule.type == "number" and isinstance(rule.value, int) else rule.value
            for rule in self.attributes
            if rule.name is not None and rule.value is not None
        }
        for pattern in self._patterns:
            found.update(pattern.values(source))
        return found

    def faults(self, source: str) -> list[str]:
        """Return what of the path at `source` should be a value and is none."""
        return [fault for pattern in self._patterns for fault in pattern.faults(source)]

    @cached_property
    def _globs(self) -> tuple[list[re.Pattern[str]], list[re.Pattern[str]]]:
        return [compile_glob(text) for text in self.include], [compile_glob(text) for text in self.exclude]

    def wants(self, source: str) -> bool:
        """Tell whether the file at `source` belongs to the site by its patterns."""
        include, exclude = self._globs
        return any(glob.match(source) for glob in include) and not any(glob.match(source) for glob in exclude)

    def avoids(self, folder: str) -> bool:
        """Tell whether a folder, with all in it, is excluded."""
        return any(glob.match(folder) for glob in self._globs[1])

    def path_of(self, source: str) -> str:
        """Return the logical path, in the merged tree, of the file at `source`."""
        experiment = re.sub(r"\s+", "-", self.experiment.lower())
        return f"/{experiment}/{self.name}/{source}"

    def local_path(self, source: str) -> bytes:
        """Return the path of a file in the file system.

        Raises
        ------
        UsageError
            If it would leave the root.
        """
        parts = decode_path(source).split(b"/")
        if not source or any(part in (b"", b".", b"..") for part in parts) or b"\0" in decode_path(source):
            raise UsageError("not a path below the site's root", where=source)
        return os.path.join(os.fsencode(self.root), *parts)  # noqa: PTH118  bytes: a name need not be UTF-8

    def url_of(self, source: str) -> str:
        """Return the URL of a file, as stores take it: nothing in it is percent-quoted."""
        return f"file://{os.fsdecode(self.local_path(source))}"

    def calibration_file(self, kind: str) -> Path:
        """Return the path of a calibration file: ``coordinates`` or ``factors``.

        Raises
        ------
        UsageError
            If the site names none.
        """
        name = getattr(self.calibration, kind)
        if name is None:
            raise UsageError(
                f"site '{self.name}' names no file of {kind}",
                remedy=f"add 'calibration: {{{kind}: FILE}}' to its YAML file and add it again",
            )
        return Path(self.root, name)


def _type_of(value: Scalar | None) -> AttributeType:
    from datetime import date, datetime

    kinds: tuple[tuple[type, AttributeType], ...] = (
        (bool, "boolean"),
        (int, "integer"),
        (float, "number"),
        (datetime, "time"),
        (date, "date"),
    )
    return next((name for kind, name in kinds if isinstance(value, kind)), "string")


def _is_of(value: Scalar, kind: AttributeType) -> bool:
    found = _type_of(value)
    return found == kind or (kind == "number" and found == "integer")


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
        if not root or "://" in root or "\0" in root:
            raise UsageError("root: a folder of this machine is wanted", where=f"{path}:{line}")
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
    content = site.model_dump(exclude_defaults=True)  # dates stay dates
    write_whole(sites_folder() / f"{site.name}.yaml", dump_yaml(content))


def check_root(site: Site, where: str | None = None) -> None:
    """Raise unless the root of a site is a folder that can be listed.

    Raises
    ------
    NotFoundError, UsageError
    """
    try:
        with os.scandir(site.root):
            pass
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError(
            f"the root of site '{site.name}' is no folder: {site.root}",
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
    if not _NAME.match(name) or not path.is_file():
        known = sorted(path.stem for path in sites_folder().glob("*.yaml"))
        raise NotFoundError(
            f"there is no site '{name}'",
            nearest=nearest_word(name, known),
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


def remove_site(name: str) -> Site:
    """Forget a site and return it; its files stay as they are.

    Raises
    ------
    NotFoundError
    """
    site = load_site(name)
    (sites_folder() / f"{name}.yaml").unlink()
    return site


def site_of(record: FileRecord) -> Site:
    """Return the site that holds a file.

    Raises
    ------
    NotFoundError
        If it is not known here.
    """
    return load_site(record.site)


def source_url(record: FileRecord) -> str:
    """Return the URL of a file in place at its site.

    Raises
    ------
    NotFoundError
    """
    return site_of(record).url_of(record.source)


def open_source(record: FileRecord) -> BinaryIO:
    """Open a file in place at its site, for reading only.

    Raises
    ------
    NotFoundError
        If the site or the file is gone.
    UsageError
        If it is no plain file, or outside of the root, or must not be read.
    """
    site = site_of(record)
    path = site.local_path(record.source)
    try:
        return os.fdopen(open_plain(path, os.fsencode(site.root)), "rb")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError(
            "the file is gone", where=os.fsdecode(path), remedy=f"apbatch ingest {site.name} notes what changed"
        ) from error
    except OSError as error:
        raise UsageError(f"can't be read: {error.strerror}", where=os.fsdecode(path)) from error


def ingest_remedy(record: FileRecord) -> str:
    """Return the command that registers a file as it is now.

    An ingest reads only files whose size or time of change differ; content that changed under both needs ``--again``.
    """
    try:
        status = os.lstat(site_of(record).local_path(record.source))
        unnoticed = (status.st_size, status.st_mtime_ns) == (record.size, record.mtime_ns)
    except (ApbatchError, OSError):
        unnoticed = False
    return f"apbatch ingest {record.site}{' --again' if unnoticed else ''} registers what is there now"


def open_plain(path: bytes, root: bytes) -> int:
    """Open a plain file read-only, leaving its access time alone where possible; return the descriptor.

    No component below the root may be a link, so that nothing outside is ever read; what is no plain file is never
    waited for.

    Raises
    ------
    OSError
    """
    folder = os.path.realpath(os.path.dirname(path))  # noqa: PTH120  bytes
    real_root = os.path.realpath(root)
    if folder != real_root and not folder.startswith(real_root.rstrip(b"/") + b"/"):
        raise PermissionError(1, "it is outside of the site's root")
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags | getattr(os, "O_NOATIME", 0))
    except PermissionError:  # only the owner may leave the access time alone
        descriptor = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise PermissionError(1, "it is no plain file")
    return descriptor
