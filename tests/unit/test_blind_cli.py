"""`apbatch blind` from making a set to opening its labels."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner

from apbatch.cli import blind
from apbatch.errors import UsageError
from tests.synthetic import showers


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return showers(tmp_path_factory.mktemp("cli"), 30, 30, 2)


def call(*arguments: str) -> dict:
    app = typer.Typer()
    app.callback()(lambda: None)
    blind.register(app)
    outcome = CliRunner().invoke(app, ["blind", *arguments, "--format", "json"], catch_exceptions=True)
    if outcome.exception and not isinstance(outcome.exception, SystemExit):
        raise outcome.exception
    return json.loads(outcome.stdout)


def test_from_make_to_unseal(inputs: dict[str, str], tmp_path: Path) -> None:
    folder = str(tmp_path / "a b")
    urls = [word for name, url in inputs.items() for word in (f"--{name}", url)]
    (made,) = call("make", folder, *urls, "--size-min", "70 pe")
    tables = []
    for split in ("validation", "test"):
        ids = pq.read_table(Path(folder) / "set" / f"{split}.parquet", columns=["id"])["id"]
        n = len(ids)
        columns = {"method": ["m"] * n, "variant": ["none"] * n, "split": [split] * n, "score": [0.5] * n}
        tables.append(pa.table({**columns, "id": ids}))
    pq.write_table(pa.concat_tables(tables), tmp_path / "scores.parquet")
    with pytest.raises(UsageError, match="no scores were frozen"):
        call("unseal", folder)
    call("submit", folder, str(tmp_path / "scores.parquet"))
    (opened,) = call("unseal", folder)
    assert opened["gammas"] + opened["hadrons"] == made["test_events"]
    assert [entry["act"] for entry in call("status", folder)] == ["made", "frozen", "unsealed"]


def test_a_wrong_unit_is_a_users_error(inputs: dict[str, str], tmp_path: Path) -> None:
    urls = [word for name, url in inputs.items() for word in (f"--{name}", url)]
    with pytest.raises(UsageError, match="can't be converted to 'pe'"):
        call("make", str(tmp_path / "x"), *urls, "--size-min", "60 m")
