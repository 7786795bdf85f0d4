"""Descriptions that all hosts share: sites and policies live in the catalogue, not in one home."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class DescriptionKind(StrEnum):
    """What is described."""

    SITE = "site"
    POLICY = "policy"
    #: What was last applied to all files of a site; the text is a digest of the site's description.
    APPLIED = "applied"


@dataclass(frozen=True, slots=True)
class Description:
    """The description of a site, or a policy.

    Attributes
    ----------
    kind : DescriptionKind
    name : str
    text : str
        The YAML, as it was written.
    preferred : bool
        Of a site: where sites hold different content at one place, this one's gets the plain name.
    revision : int
        Set by the catalogue.
    """

    kind: DescriptionKind
    name: str
    text: str
    preferred: bool = False
    revision: int = 0
