"""A live view as the command serves it: a part of the tree with a policy of its own, and whose word counts there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from apbatch.api.tokens import TokenFile
from tests.agents import Site, site
from tests.components.access.test_agent import ask, follow
from tests.components.access.test_services import Started, started
from tests.provider import ISSUER, Provider

RULES = "rules: [{name: experts, who: {groups: experts}, may: data}]"
SETTINGS = "service: {{oidc: {{issuer: '{issuer}', audience: apbatch, keys: '{keys}'}}}}\n"
WHOLE, NOTHING = (200, b"0123456789"), (404, b"not found\n")
SHOWN, SMALL, ELSEWHERE = "/taiga/taiga/a/shown", "/taiga/taiga/a/small", "/taiga/taiga/b/large"


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    provider = Provider()
    yield provider
    provider.close()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gateway")


@pytest.fixture(scope="module")
def token(home: Path) -> str:
    """One of the gateway's own home."""
    return TokenFile(home / "home" / "api" / "tokens.json").create("bob", ("experts",))


@pytest.fixture(scope="module")
def view(home: Path, provider: Provider, token: str) -> Iterator[tuple[Started, Site]]:
    settings = home / "settings.yaml"
    settings.write_text(SETTINGS.format(issuer=ISSUER, keys=provider.url))
    with site(home) as taiga:
        taiga.policy.write_text(RULES)
        for path, data in ((SHOWN, b"0123456789"), (SMALL, b"x"), (ELSEWHERE, b"9876543210")):
            taiga.add(path.removeprefix("/taiga/taiga/"), data)
        with started(
            home, "gateway", "--select", "size > 5", "--below", "/taiga/taiga/a", "--policy", str(taiga.policy),
            "--secrets", str(taiga.secrets), APBATCH_HOME=str(home / "home"), APBATCH_CONFIG=str(settings),
            APBATCH_CATALOGUE=f"sqlite:///{home}/catalogue.sqlite", APBATCH_CACHE=str(home / "cache"),
        ) as gateway:  # fmt: skip
            yield gateway, taiga


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_a_view_serves_its_part_at_every_address(view: tuple[Started, Site], provider: Provider) -> None:
    gateway, _ = view
    headers = bearer(provider.token())
    for path, expected in (
        (SHOWN, (200, b"0123456789")),
        (SMALL, (404, b"not found\n")),
        (ELSEWHERE, (404, b"not found\n")),
    ):
        assert gateway.get(f"/f{path}", **headers) == expected
    entries = json.loads(gateway.get("/f/taiga/taiga/", **headers)[1])["entries"]
    assert [one["name"] for one in entries] == ["a"]
    entries = json.loads(gateway.get("/f/taiga/taiga/a/", **headers)[1])["entries"]
    assert [one["name"] for one in entries] == ["shown"]
    located = ask(gateway.url, "/locate", headers, "POST", {"paths": [SHOWN, SMALL, ELSEWHERE]}).json()["files"]
    assert list(located) == [SHOWN]
    assert gateway.get(f"/b/{located[SHOWN]['capability']}/0") == WHOLE
    changes = json.loads(gateway.get("/changes", **headers)[1])["changes"]
    assert [one["key"] for one in changes] == [SHOWN]


def test_a_view_is_live(view: tuple[Started, Site], provider: Provider) -> None:
    gateway, taiga = view
    since = taiga.catalogue.revision()
    events = follow(gateway.url, since, bearer(provider.token()))
    taiga.add("b/hidden", b"0123456789")
    taiga.add("a/new", b"abcdefghij")
    event = next(one for one in events if one["event"] != "position")
    assert (event["event"], json.loads(event["data"])["key"]) == ("new", "/taiga/taiga/a/new")
    assert gateway.get("/f/taiga/taiga/a/new", **bearer(provider.token())) == (200, b"abcdefghij")


def test_tokens_of_the_provider_and_of_the_home_count_and_no_others(
    view: tuple[Started, Site], provider: Provider, token: str
) -> None:
    gateway, _ = view
    target = f"/f{SHOWN}"
    assert gateway.get(target) == NOTHING
    assert gateway.get(target, **bearer(token)) == gateway.get(target, **bearer(provider.token())) == WHOLE
    assert gateway.get(target, **bearer(provider.token(groups=["guests"]))) == NOTHING
    forged = (
        provider.token(provider.other), provider.unsigned(), provider.confused(), provider.token(aud="else"),
        provider.token(exp=1), f"{token[:-1]}{'A' if token[-1] != 'A' else 'B'}",
    )  # fmt: skip
    for one in forged:
        for address in (target, "/changes", "/feed", "/"):
            assert gateway.get(address, **bearer(one))[0] == 401, (one, address)
    assert not any(token in line or provider.token()[-40:] in line for line in gateway.lines)
