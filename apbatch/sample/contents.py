"""What a file of the sample holds, as it was known before the file was written."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import date
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Contents:
    """What is in one file.

    Attributes
    ----------
    path : str
        Below the sample's folder, with ``/``.
    format : str
        Name of the reader that recognises the file.
    events : int
        What the reader counts: records, images, showers or rows.
    run : int, optional
        As the reader tells it: the only run, or that of the first event.
    night : datetime.date, optional
    telescope, cluster : int, optional
    sums : dict
        Of all events, by the name of the quantity: see the module that wrote the file.
    """

    path: str
    format: str
    events: int
    run: int | None = None
    night: date | None = None
    telescope: int | None = None
    cluster: int | None = None
    sums: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-like content, without what is not told."""
        content = {name: value for name, value in asdict(self).items() if value is not None}
        if self.night is not None:
            content["night"] = self.night.isoformat()
        return content

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Read what `to_json` made."""
        night = content.get("night")
        return cls(**{**content, "night": date.fromisoformat(night) if night is not None else None})
