"""Who asks: a bearer token of this service, or one of an OpenID provider; never anything that a client only claims."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any

import jwt

from apbatch.access.principals import ANYONE, OWNER, Principal
from apbatch.api.tokens import REFUSAL, TokenFile
from apbatch.config import OidcSettings, ServiceSettings
from apbatch.errors import AccessError, ServerError

#: Name of the cookie that a browser keeps after signing in.
COOKIE = "apbatch_token"
_LONGEST = 8192


@dataclass(frozen=True, slots=True)
class Asker:
    """Who sent a request.

    Attributes
    ----------
    principal : Principal
    key : str
        By which requests are counted: a token, an issuer's subject, or an address.
    """

    principal: Principal
    key: str


class Provider:
    """Checks the tokens of one OpenID provider."""

    def __init__(self, settings: OidcSettings) -> None:
        self._settings = settings
        self._keys: jwt.PyJWKClient | None = None

    def claims(self, token: str) -> dict[str, Any]:
        """Return the claims of a token with a good signature, of this issuer and audience, that has not expired.

        Raises
        ------
        AccessError
            The same for every reason.
        ServerError
            If the provider's keys can't be had.
        """
        settings = self._settings
        try:
            if jwt.get_unverified_header(token).get("alg") not in settings.algorithms:
                raise AccessError(REFUSAL)
            key = self._client().get_signing_key_from_jwt(token)
            claims: dict[str, Any] = jwt.decode(
                token,
                key.key,
                algorithms=list(settings.algorithms),
                audience=settings.audience,
                issuer=settings.issuer,
                leeway=settings.leeway_s,
                options={"require": ["exp", "iss", "aud", settings.name_claim], "verify_aud": True, "verify_iss": True},
            )
        except jwt.PyJWKClientConnectionError as error:
            raise ServerError("the OpenID provider does not answer", remedy="try again later") from error
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            raise AccessError(REFUSAL) from error
        return claims

    def principal(self, token: str) -> Principal:
        """Return whom a token names; groups that are no list of texts are none."""
        claims = self.claims(token)
        name, groups = claims.get(self._settings.name_claim), claims.get(self._settings.groups_claim, [])
        if not isinstance(name, str) or not name or not isinstance(groups, list):
            raise AccessError(REFUSAL)
        return Principal(name, frozenset(group for group in groups if isinstance(group, str)), frozenset())

    def _client(self) -> jwt.PyJWKClient:
        if self._keys is None:
            url = self._settings.keys or self._keys_url()
            self._keys = jwt.PyJWKClient(url, cache_jwk_set=True, lifespan=300, timeout=10)
        return self._keys

    def _keys_url(self) -> str:
        import urllib3

        address = self._settings.issuer.rstrip("/") + "/.well-known/openid-configuration"
        try:
            answer = urllib3.request("GET", address, timeout=10.0, retries=1, redirect=False)
            content = answer.json()
            if answer.status != 200 or content.get("issuer") != self._settings.issuer:
                raise ValueError("its configuration names another issuer")
            return str(OidcSettings(issuer=self._settings.issuer, audience="-", keys=content["jwks_uri"]).keys)
        except (urllib3.exceptions.HTTPError, ValueError, KeyError, AttributeError) as error:
            raise ServerError("the OpenID provider does not answer as one", where=address) from error


class Identity:
    """Tells who asks.

    Parameters
    ----------
    tokens : TokenFile, optional
        None where no authentication is wanted: whoever reaches the loopback interface is the owner.
    provider : Provider, optional
    """

    def __init__(self, tokens: TokenFile | None, provider: Provider | None = None) -> None:
        self._tokens, self._provider = tokens, provider

    @property
    def is_open(self) -> bool:
        """Whether everybody is the owner."""
        return self._tokens is None

    def asker(self, headers: Mapping[str, str], cookies: Mapping[str, str], address: str) -> Asker:
        """Return who sent a request.

        Parameters
        ----------
        headers, cookies : Mapping
            Of the request; names of headers in lower case.
        address : str
            Of the client.

        Raises
        ------
        AccessError
            If a token is given that is not valid: it never counts as none.
        ServerError
            If a provider's keys can't be had.
        """
        if self._tokens is None:
            return Asker(OWNER, "owner")
        authorization = headers.get("authorization")
        if authorization is not None:
            scheme, _, token = authorization.partition(" ")
            if scheme.lower() != "bearer":
                raise AccessError("the scheme of the authorization is not known", remedy="Authorization: Bearer TOKEN")
        else:
            token = cookies.get(COOKIE, "")
            if not token:
                return Asker(ANYONE, f"address {address}")
        return self.of_token(token.strip())

    def principal(self, headers: Mapping[str, str]) -> Principal:
        """Return who sent a request to a server that knows no cookies.

        Parameters
        ----------
        headers : Mapping
            Of the request; names in lower case.

        Raises
        ------
        AccessError, ServerError
            As `asker`.
        """
        return self.asker(headers, {}, "").principal

    def check_still(self, headers: Mapping[str, str], who: Principal) -> None:
        """Make sure that an answer without end still goes to whom it began for.

        Parameters
        ----------
        headers : Mapping
            Of the request; names in lower case.
        who : Principal
            Who sent it, as its token said then.

        Raises
        ------
        AccessError
            If the token was revoked or expired since, or its user is refused.
        ServerError
            If a provider's keys can't be had.
        """
        if self.asker(headers, cookies_of(headers), "").principal != who:
            raise AccessError(REFUSAL)

    def of_token(self, token: str) -> Asker:
        """Return whom a token names.

        Raises
        ------
        AccessError, ServerError
            As `asker`.
        """
        assert self._tokens is not None
        if len(token) > _LONGEST or not token.isascii():
            raise AccessError(REFUSAL)
        if not token.startswith("apb_") and self._provider is not None:
            who = self._provider.principal(token)
            if self._tokens.is_blocked(who.name):
                raise AccessError(REFUSAL)
            return Asker(who, f"subject {who.name}")
        entry = self._tokens.check(token)
        return Asker(Principal(entry.name, frozenset(entry.groups), frozenset(entry.roles)), f"token {entry.id}")


def cookies_of(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the cookies of a request; none where they can't be read.

    Parameters
    ----------
    headers : Mapping
        Of the request; names in lower case.
    """
    with suppress(CookieError):
        return {name: morsel.value for name, morsel in SimpleCookie(headers.get("cookie", "")).items()}
    return {}


def identity_of(settings: ServiceSettings) -> Identity:
    """Return who tells the askers of every server of this home apart: service, agents and gateways alike.

    Parameters
    ----------
    settings : ServiceSettings
        May name an OpenID provider, whose tokens are taken beside those of the home.
    """
    return Identity(TokenFile(), Provider(settings.oidc) if settings.oidc else None)
