"""What a site's YAML file says: where its files lie, what they are called in the merged tree, what their paths tell."""

from __future__ import annotations

import os
import re
from datetime import date, datetime, time, timedelta
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from apbatch.errors import ApbatchError, UsageError
from apbatch.formats.reader import Attribute, AttributeType, Scalar
from apbatch.index.files import COMMON_FIELDS
from apbatch.ingest.patterns import (
    PathPattern,
    compile_glob,
    compile_pattern,
    compile_regex,
    decode_path,
    encode_path,
)
from apbatch.ingest.tree import PlaceRule, compile_tree
from apbatch.units import unit as parse_unit

#: Fields of every file that a site may set from paths or as a constant, with their types.
FIELDS: dict[str, AttributeType] = {"run": "integer", "night": "date", "telescope": "integer", "cluster": "integer"}
SITE_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
#: When a night begins unless the site says otherwise: at noon, UTC.
NOON = "12:00"
#: What only the description at the site itself may say: an agent's files come as they are registered there.
_AT_THE_SITE = ("include", "exclude", "attributes", "calibration", "tree", "other", "night_begins")
_IDENTIFIER = re.compile(r"^[a-z][a-z0-9_]*$")


class AttributeRule(BaseModel):
    """One rule for attributes of the files of a site: a path pattern, a regular expression, a constant, or a type."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)

    pattern: str | None = Field(default=None, description="path pattern, such as BSM{cluster:int}/{*}.{part:int}")
    regex: str | None = Field(default=None, description="regular expression with named groups")
    name: str | None = Field(default=None, description="name of the attribute that is given or declared")
    value: Scalar | None = Field(default=None, description="constant for every file")
    type: AttributeType | None = None
    unit: str | None = None
    description: str = ""

    @model_validator(mode="after")
    def _one_kind(self) -> AttributeRule:
        if sum(choice is not None for choice in (self.pattern, self.regex, self.name)) != 1:
            raise ValueError("give one of 'pattern', 'regex' and 'name'")
        if self.name is None and any(choice is not None for choice in (self.value, self.type, self.unit)):
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

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)

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
        Absolute path of its folder, or the address of its agent, ``https://…``, where the files are elsewhere.
    include, exclude : tuple of str
        Glob patterns on paths below the root; what matches no `include` or any `exclude` is not looked at.
    attributes : tuple of AttributeRule
    calibration : Calibration
    camera : str, optional
        Name of the camera of its raw data.
    events : bool
        Whether an ingest loads the events of its files as well.
    tree : str or mapping
        Places in the merged tree: one folder for the whole site, or places by folders and patterns, of which the first
        that fits counts. A file that none fits stands under its path, ``/experiment/site/source``.
    preferred : bool
        Whether this site's file has the plain name where sites hold different content at one place.
    other : bool
        Whether files of no known format are in the catalogue.
    night_begins : str
        Time of day (UTC) at which a night begins, such as ``05:00``.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True, ignored_types=(cached_property,))

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
    tree: str | dict[str, str] = Field(default_factory=dict)
    preferred: bool = False
    other: bool = True
    night_begins: str = NOON

    @field_validator("night_begins")
    @classmethod
    def _time_of_day(cls, value: str) -> str:
        try:
            return f"{time.fromisoformat(value):%H:%M}"
        except ValueError:
            raise ValueError("a time of day (UTC) is wanted, such as '05:00'") from None

    @field_validator("tree")
    @classmethod
    def _places(cls, value: str | dict[str, str]) -> str | dict[str, str]:
        compile_tree(value)
        return value

    @field_validator("name")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if not SITE_NAME.match(value):
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
    def _agent_says_the_rest(self) -> Site:
        if self.is_remote and (names := [name for name in _AT_THE_SITE if name in self.model_fields_set]):
            raise ValueError(f"'{names[0]}' is said at the site itself, whose agent the root is")
        return self

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
        patterns = []
        for rule in self.attributes:
            if rule.pattern is not None:
                pattern = compile_pattern(rule.pattern)
                types = {name: self._types.get(name, FIELDS.get(name, kind)) for name, kind in pattern.types.items()}
                patterns.append(PathPattern(pattern.expression, types, pattern.dates))
            elif rule.regex is not None:
                patterns.append(compile_regex(rule.regex, {**FIELDS, **self._types}))
        return tuple(patterns)

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
                raise UsageError(
                    f"'{name}' is not a name of an attribute: small letters, digits and '_', a letter first"
                )
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
        values: dict[str, Scalar] = {
            rule.name: float(rule.value) if rule.type == "number" and isinstance(rule.value, int) else rule.value
            for rule in self.attributes
            if rule.name is not None and rule.value is not None
        }
        for pattern in self._patterns:
            values.update(pattern.values(source))
        return values

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

    @property
    def wants_all(self) -> bool:
        """Whether no pattern need be asked which files belong to the site."""
        return self.include == ("**",) and not self.exclude

    @property
    def is_remote(self) -> bool:
        """Whether the files are elsewhere: the root is the address of the site's agent."""
        return self.root.startswith(("http://", "https://"))

    @property
    def folder(self) -> str:
        """Path under which the catalogue knows the site's files."""
        return _folder(self.experiment, self.name)

    def path_of(self, source: str) -> str:
        """Return the path by which the catalogue knows the file at `source`."""
        return f"{self.folder}/{source}"

    @cached_property
    def _tree(self) -> tuple[PlaceRule, ...]:
        return compile_tree(self.tree)

    def place_of(self, source: str) -> str:
        """Return the place in the merged tree of the file at `source`."""
        for rule in self._tree:
            if (place := rule.place_of(source)) is not None:
                return place
        return self.path_of(source)

    def night_of(self, moment: datetime) -> date:
        """Return the night (the date on which it began) to which a moment belongs."""
        begins = time.fromisoformat(self.night_begins)
        return (moment - timedelta(hours=begins.hour, minutes=begins.minute)).date()

    def local_path(self, source: str) -> bytes:
        """Return the path of a file in the file system.

        Raises
        ------
        UsageError
            If it would leave the root, or the files are elsewhere.
        """
        if self.is_remote:
            raise UsageError("the site's files are not on this machine", where=self.root)
        path = decode_path(source)  # a name need not be UTF-8
        if not source or any(part in (b"", b".", b"..") for part in path.split(b"/")) or b"\0" in path:
            raise UsageError("not a path below the site's root", where=source)
        return os.fsencode(self.root).rstrip(b"/") + b"/" + path

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


@lru_cache(maxsize=256)
def _folder(experiment: str, name: str) -> str:
    experiment = re.sub(r"\s+", "-", experiment.lower())
    return f"/{experiment}/{name}"


def _type_of(value: Scalar | None) -> AttributeType:
    kinds: tuple[tuple[type, AttributeType], ...] = (
        (bool, "boolean"),
        (int, "integer"),
        (float, "number"),
        (datetime, "time"),
        (date, "date"),
    )
    return next((name for kind, name in kinds if isinstance(value, kind)), "string")


def _is_of(value: Scalar, kind: AttributeType) -> bool:
    value_type = _type_of(value)
    return value_type == kind or (kind == "number" and value_type == "integer")
