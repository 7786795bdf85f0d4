"""Whose word counts: tokens of a provider that are forged in every usual way, limits of each token, what logs hold."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jwt
import pytest

from apbatch.config import OidcSettings, ServiceSettings
from apbatch.index.sql.sqlite import SqliteCatalogue
from tests.provider import ISSUER, Provider
from tests.service import Running, fill, record, serving
from tests.waits import PATIENCE_S

RULES = """
rules:
  - {name: names, who: anyone, may: metadata, below: /taiga}
  - {name: all, who: {groups: experts}, may: data}
"""


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    provider = Provider()
    yield provider
    provider.close()


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqliteCatalogue]:
    with SqliteCatalogue(f"sqlite:///{tmp_path_factory.mktemp('tokens')}/c.sqlite") as catalogue:
        fill(catalogue, 10)
        yield catalogue


@pytest.fixture(scope="module")
def running(
    provider: Provider, catalogue: SqliteCatalogue, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    oidc = OidcSettings(issuer=ISSUER, audience="apbatch", keys=provider.url)
    home = tmp_path_factory.mktemp("home")
    with serving(home, catalogue, auth=True, rules=RULES, oidc=oidc) as running:
        yield running


def counted(running: Running, token: str) -> tuple[int, bytes]:
    answer = running.get("/api/v1/files/count", Authorization=f"Bearer {token}")
    return answer.status, answer.data


def test_a_good_token_brings_its_groups(running: Running, provider: Provider) -> None:
    assert counted(running, provider.token()) == (200, b'{"count":15}')
    assert counted(running, provider.token(groups="experts"))[0] == 401  # a text is no list of groups
    assert counted(running, provider.token(groups=[1, {"x": 2}])) == (200, b'{"count":10}')


FORGED = {
    "of another issuer": lambda p: p.token(iss="https://evil.example"),
    "of an issuer with a slash more": lambda p: p.token(iss=ISSUER + "/"),
    "for another audience": lambda p: p.token(aud="other"),
    "for no audience": lambda p: p.token(aud=None),
    "expired": lambda p: p.token(exp=time.time() - 3600),
    "without an end": lambda p: p.token(exp=None),
    "with a wrong end": lambda p: p.token(exp="tomorrow"),
    "not yet valid": lambda p: p.token(nbf=time.time() + 3600),
    "without a name": lambda p: p.token(sub=None),
    "unsigned": lambda p: p.unsigned(),
    "unsigned in capitals": lambda p: p.unsigned("nOnE"),
    "by another key": lambda p: p.token(p.other),
    "by a key that nobody knows": lambda p: p.token(p.other, headers={"kid": "two"}),
    "by a key in itself": lambda p: p.token(
        p.other, headers={"jwk": json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(p.other.public_key()))}
    ),
    "by a key from elsewhere": lambda p: p.token(p.other, headers={"jku": "http://127.0.0.1:9/keys"}),
    "by the public key as a secret": lambda p: p.confused(),
    "by another algorithm": lambda p: p.token(algorithm="RS512"),
    "changed": lambda p: p.token()[:-8] + "AAAAAAAA",
    "cut": lambda p: p.token().rpartition(".")[0],
    "no token": lambda p: "x.y.z",
    "empty": lambda p: "",
    "long": lambda p: "x" * 9000,
    "of ours, invented": lambda p: "apb_0123456789ab_" + "A" * 43,
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_token_is_refused_and_never_counts_as_none(running: Running, provider: Provider, name: str) -> None:
    status, body = counted(running, FORGED[name](provider))
    problem = json.loads(body)
    assert (status, problem["detail"]) == (401, "the token is not valid"), body


def test_who_is_blocked_is_refused_with_tokens_of_every_issuer(running: Running, provider: Provider) -> None:
    ours = running.tokens.create("bob")
    assert counted(running, ours)[0] == counted(running, provider.token(sub="bob"))[0] == 200
    running.tokens.block("bob")
    try:
        assert counted(running, ours)[0] == counted(running, provider.token(sub="bob"))[0] == 401
        assert counted(running, provider.token())[0] == 200
    finally:
        running.tokens.block("bob", False)


ENDINGS = {
    "revoked": lambda running, token, _: running.tokens.revoke(token.split("_")[1]),
    "expired": lambda running, _, monkeypatch: monkeypatch.setattr(
        running.tokens, "_now", lambda: datetime.now(UTC) + timedelta(days=2)
    ),
    "of a user who is blocked": lambda running, *_: running.tokens.block("eve"),
}


@pytest.mark.parametrize("header", ["Authorization: Bearer ", "Cookie: apbatch_token="])
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_feed_ends_with_the_token_that_opened_it(
    tmp_path: Path, ending: str, header: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("apbatch.api.changes._PERIOD_S", 0.05)
    with (
        SqliteCatalogue(f"sqlite:///{tmp_path}/c.sqlite") as catalogue,
        serving(tmp_path, catalogue, auth=True, rules=RULES) as running,
    ):
        fill(catalogue, 1)
        token = running.tokens.create("eve", ("experts",), days=1)
        name, value = f"{header}{token}".split(": ")
        feed = running.pool.request(
            "GET", f"{running.url}/api/v1/changes?since={catalogue.revision()}", preload_content=False,
            headers={name: value, "Accept": "text/event-stream"}, timeout=PATIENCE_S,
        )  # fmt: skip
        shown, hidden = (f"{header[:6]} {ending} {when}" for when in ("before", "after"))
        catalogue.upsert([record(1, path=f"/taiga/site/{shown}", source=shown)])
        text = rest = b""
        with closing(feed):
            while shown.encode() not in text:
                text += feed.read1(65536)
            ENDINGS[ending](running, token, monkeypatch)
            catalogue.upsert([record(2, path=f"/taiga/site/{hidden}", source=hidden)])
            while part := feed.read1(65536):
                rest += part
                assert hidden.encode() not in rest
        assert b'"status": 401' in rest.partition(b"event: problem")[2]


def test_the_log_holds_no_token_wherever_it_is_put(running: Running, provider: Provider) -> None:
    token = provider.token()
    secret = token.rpartition(".")[2]
    running.get(f"/api/v1/files/count?access_token={token}&id_token={token}")
    running.get("/api/v1/files/count", Cookie=f"apbatch_token={token}")
    running.get("/api/v1/files/count", Authorization=f"Basic {token}")
    running.pool.request(
        "POST", running.url + "/sign-in", fields={"token": token}, encode_multipart=False, redirect=False
    )
    assert secret not in "\n".join(running.log) and len(running.log) >= 4


def test_each_token_has_a_limit_of_its_own(catalogue: SqliteCatalogue, tmp_path: Path) -> None:
    settings = ServiceSettings(requests_per_second=0.01, burst=3)
    with serving(tmp_path, catalogue, auth=True, rules=RULES, settings=settings) as running:
        first, second = running.tokens.create("ann"), running.tokens.create("ann")
        assert [counted(running, first)[0] for _ in range(5)] == [200, 200, 200, 429, 429]
        assert counted(running, second)[0] == 200
        refused = running.get("/api/v1/sites", Authorization=f"Bearer {first}", X_Forwarded_For="10.1.1.1")
        assert refused.status == 429 and int(refused.headers["retry-after"]) >= 1
        problem = json.loads(refused.data)
        assert problem["status"] == 429 and problem["remedy"].startswith("wait")
        graph = running.pool.request("POST", running.url + "/graphql", body=b"{}", headers={
            "Content-Type": "application/json", "Authorization": f"Bearer {first}"})  # fmt: skip
        assert graph.status == 429
        wrong = [running.get("/api/v1/sites", Authorization=f"Bearer apb_{n}").status for n in range(5)]
        assert wrong == [401, 401, 401, 429, 429]  # guessing tokens is counted by address
