"""`apbatch blind` from making a set to opening its labels."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner

from apbatch.cli.analysis import blind
from apbatch.errors import UsageError, VerificationError
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


def scores_for(folder: Path, tmp_path: Path) -> Path:
    tables = []
    for split in ("validation", "test"):
        ids = pq.read_table(folder / "set" / f"{split}.parquet", columns=["id"])["id"]
        n = len(ids)
        columns = {"method": ["m"] * n, "treatment": ["none"] * n, "split": [split] * n, "score": [0.5] * n}
        tables.append(pa.table({**columns, "id": ids}))
    pq.write_table(pa.concat_tables(tables), tmp_path / "scores.parquet")
    return tmp_path / "scores.parquet"


def test_from_make_to_unseal(inputs: dict[str, str], home: Path, tmp_path: Path) -> None:
    folder = str(tmp_path / "a b")
    urls = [word for name, url in inputs.items() for word in (f"--{name}", url)]
    (made,) = call("make", folder, *urls, "--size-min", "70 pe")
    scores_for(Path(folder), tmp_path)
    scores = str(tmp_path / "scores.parquet")
    with pytest.raises(UsageError, match="goes on from a known head"):
        call("submit", folder, scores)
    with pytest.raises(UsageError, match="no scores were frozen"):
        call("unseal", folder, "--head", made["head"])
    (frozen,) = call("submit", folder, scores, "--head", made["head"])
    (opened,) = call("unseal", folder, "--head", frozen["head"])
    assert opened["gammas"] + opened["hadrons"] == made["test_events"]
    entries = call("status", folder, "--head", opened["head"])
    assert [entry["what"] for entry in entries] == ["made", "frozen", "unsealed"]
    assert [entry["head"] for entry in entries] == [made["head"], frozen["head"], opened["head"]]


def test_a_custodian_signs_in_place_of_heads(inputs: dict[str, str], home: Path, tmp_path: Path) -> None:
    (made_key,) = call("key", str(tmp_path / "key.pem"))
    urls = [word for name, url in inputs.items() for word in (f"--{name}", url)]
    folder = str(tmp_path / "set")
    (made,) = call("make", folder, *urls, "--custodian", made_key["public"])
    with pytest.raises(VerificationError, match="is not signed"):
        call("submit", folder, str(scores_for(Path(folder), tmp_path)))
    (signed,) = call("sign", folder, "--key", str(tmp_path / "key.pem"))
    assert signed["head"] == made["head"]
    call("submit", folder, str(tmp_path / "scores.parquet"))


def test_a_set_with_a_seed_is_called_open(inputs: dict[str, str], home: Path, tmp_path: Path) -> None:
    urls = [word for name, url in inputs.items() for word in (f"--{name}", url)]
    with pytest.raises(UsageError, match="--open"):
        call("make", str(tmp_path / "x"), *urls, "--seed", "3")
    (made,) = call("make", str(tmp_path / "x"), *urls, "--seed", "3", "--open")
    assert made["kind"].startswith("open: ")


def test_a_wrong_unit_is_a_users_error(inputs: dict[str, str], tmp_path: Path) -> None:
    urls = [word for name, url in inputs.items() for word in (f"--{name}", url)]
    with pytest.raises(UsageError, match="can't be converted to 'pe'"):
        call("make", str(tmp_path / "x"), *urls, "--size-min", "60 m")
