"""The documented CQL examples, run by the real cqlsh on registered files of the sample."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from apbatch.index.backends import open_catalogue
from apbatch.index.events.store import open_events
from apbatch.ingest.scan import ingest
from apbatch.ingest.sites import add_site

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = re.findall(r"```cql\n(.*?)```", (ROOT / "docs" / "cql_cookbook.md").read_text(), re.DOTALL)

pytestmark = pytest.mark.cassandra


@pytest.fixture(scope="module")
def keyspace(cassandra: str, sample: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    name = f"cookbook_{secrets.token_hex(4)}"
    url = f"{cassandra}/{name}"
    with pytest.MonkeyPatch.context() as patch, open_catalogue(url) as catalogue, open_events(url) as events:
        patch.setenv("APBATCH_HOME", str(tmp_path_factory.mktemp("home")))
        site, _ = add_site(sample / "sites" / "taiga-raw.yaml")
        ingest(site, catalogue)
        event = {"experiment": "TAIGA", "run": 20171028, "event": 7, "telescope": 1, "cleaning": "none", "size": 3.0}
        events.upsert(pa.RecordBatch.from_pylist([event, {**event, "event": 8, "size": 7.0}]))
    return name


def test_every_example_runs(keyspace: str, cqlsh: Callable[[str], str]) -> None:
    printed = cqlsh(f"USE {keyspace};\n" + "".join(EXAMPLES))
    answers = [int(number) for number in re.findall(r"\((\d+) rows?\)", printed)]
    assert len(answers) == len(EXAMPLES) >= 9
    # one file in a folder, 20 folders, one night, …: numbers known from the data
    assert answers[:3] == [1, 20, 1]
    assert answers[5] == 4 and answers[6] == 20
    assert answers[7] == 0
    assert answers[9] == 20 and answers[10] == 1
    assert answers[-4:] == [1, 2, 1, 1]
