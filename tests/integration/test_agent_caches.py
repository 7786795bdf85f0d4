"""Blocks of an agent through two stock Squids in a chain: what reaches the origin is counted."""

from __future__ import annotations

from apbatch.access.agents.capability import rotate_secret
from tests.agents import Site, served
from tests.components.access.test_agent import DATA, ask, locate, taiga

__all__ = ["taiga"]


def test_each_block_crosses_a_chain_of_stock_caches_once(taiga: Site, squid: str) -> None:
    record = taiga.add("f", DATA)
    with served(taiga.gateway()) as (url, server):
        capability = locate(url, record.path)[record.path]["capability"]
        for _ in range(3):
            answers = [ask(squid, f"{url}/b/{capability}/{number}") for number in range(3)]
            assert b"".join(answer.body for answer in answers) == DATA
        assert server.counts["block_bytes"] == len(DATA)
        refused = [ask(squid, f"{url}/b/{capability[:-1]}/0").status for _ in range(2)]
        assert refused == [404, 404] and server.counts["refusals"] == 2  # no refusal is kept
        rotate_secret(taiga.secrets, keep=0)
        assert ask(squid, f"{url}/b/{capability}/0").status == 200  # what a cache holds, it gives until it ends
        assert ask(url, f"/b/{capability}/0").status == 404
