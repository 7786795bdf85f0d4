"""Who asks: a name, the groups it belongs to, the roles that a token gives it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody who asks, as a token or the command line made sure of it.

    Attributes
    ----------
    name : str
        Of the user.
    groups : frozenset of str
        To which the user belongs, as the token says; a policy may add others.
    roles : frozenset of str
        That the token gives.
    is_owner : bool
        Whether it is whoever runs the command line on the home of the catalogue. No token makes an owner, whatever
        names are in it.
    """

    name: str
    groups: frozenset[str] = frozenset()
    roles: frozenset[str] = frozenset()
    is_owner: bool = False


#: Who shows no token.
ANYONE = Principal("anyone")
#: Who runs the command line on this home: sees and reads everything.
OWNER = Principal("owner", is_owner=True)
