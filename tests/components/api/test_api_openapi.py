"""The service keeps to its OpenAPI document: requests that schemathesis derives from it, good ones and wrong ones."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, assume, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import Failure, FailureGroup, load_all_checks

from apbatch.index.events.backends import open_events
from apbatch.index.sql.sqlite import SqliteCatalogue
from tests.components.api.test_api_graphql import events
from tests.service import fill, serving

#: Requests of each operation; docs/contributing.md says how to ask for more.
EXAMPLES = int(os.environ.get("APBATCH_SCHEMATHESIS_EXAMPLES", "3"))
load_all_checks()
CHECKS = schemathesis.checks.CHECKS.get_by_names(
    ["not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance",
     "response_schema_conformance", "unsupported_method"]
)  # fmt: skip


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    home = tmp_path_factory.mktemp("openapi")
    with SqliteCatalogue(f"sqlite:///{home}/c.sqlite") as catalogue, open_events(f"file://{home}/events") as store:
        fill(catalogue, 20)
        store.upsert(events("taiga", 3))
        with serving(home, catalogue, store) as running:
            yield schemathesis.openapi.from_url(f"{running.url}/api/v1/openapi.json")


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["good", "wrong"])
def test_answers_are_those_of_the_document(document: schemathesis.BaseSchema, mode: GenerationMode) -> None:
    failures = []
    for result in document.include(path_regex="^/(api/v1|graphql)").get_all_operations():
        operation = result.ok()

        @settings(max_examples=EXAMPLES, derandomize=True, deadline=None, database=None,
                  suppress_health_check=list(HealthCheck))  # fmt: skip
        @given(operation.as_strategy(generation_mode=mode))
        def run(case: schemathesis.Case) -> None:
            sent = case.as_transport_kwargs(document.config.base_url)
            address = requests.Request(sent["method"], sent["url"], params=sent.get("params")).prepare().url or ""
            assume(len(address) < 32_000)  # of a longer one the server reads nothing more and closes the connection
            case.call_and_validate(checks=CHECKS, timeout=600)

        try:
            run()
        except Unsatisfiable:
            assert mode is GenerationMode.NEGATIVE  # nothing that this operation takes can be wrong
        except (FailureGroup, Failure) as failure:
            failures.append(f"{operation.label}: {failure} {getattr(failure, 'exceptions', '')}")
    assert not failures, "\n".join(failures)
