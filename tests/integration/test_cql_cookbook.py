"""The documented CQL examples, run by the real cqlsh on registered files of the sample."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from apbatch.index.backends import open_catalogue
from apbatch.index.events.backends import open_events
from apbatch.ingest.scan import ingest
from apbatch.ingest.sites import add_site
from apbatch.sample.site import read_contents

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


def test_every_example_runs(keyspace: str, sample: Path, cqlsh: Callable[[str], str]) -> None:
    files = [Path(content.path) for content in read_contents(sample)[1] if content.format == "taiga-raw"]
    folders = {file.parent.name for file in files}
    first = sum(file.parent.name == "BSM01" for file in files)
    pedestals = sum(file.suffix == ".ped" for file in files)
    printed = cqlsh(f"USE {keyspace};\n" + "".join(EXAMPLES))
    answers = [int(number) for number in re.findall(r"\((\d+) rows?\)", printed)]
    assert len(answers) == len(EXAMPLES) >= 9
    # Only pedestal files are long, with many records in a short time.
    assert answers[:6] == [first, len(folders), 1, pedestals, pedestals, pedestals]
    assert answers[6:8] == [len(files), 0]
    assert answers[9] == len(folders) and answers[10] == 1
    assert answers[-4:] == [1, 2, 1, 1]
