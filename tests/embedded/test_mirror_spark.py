"""A mirror by Spark's workers: the same replicas, records and reports as by threads, in several rounds."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from apbatch.config import load_settings
from apbatch.index.backends import open_catalogue
from apbatch.index.query import Everything
from apbatch.spark import mirroring
from apbatch.storage.backends import open_store
from tests.agents import Site

pytestmark = pytest.mark.spark

FILES = 9


def test_workers_copy_record_and_report_what_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from apbatch.cli.main import application, run_command

    monkeypatch.setenv("APBATCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("APBATCH_CATALOGUE", f"sqlite:///{tmp_path}/catalogue.sqlite")
    monkeypatch.setattr(mirroring, "_FILES", 2)
    monkeypatch.setattr(mirroring, "_ROUNDS", 1)
    settings = tmp_path / "settings.yaml"
    settings.write_text("spark: {master: 'local[2]'}\n")
    store = open_store((tmp_path / "store").as_uri())
    with open_catalogue(load_settings().catalogue) as catalogue:
        site = Site(tmp_path, catalogue)
        records = [site.add(f"d/f{number}", random.Random(number).randbytes(1000 + number)) for number in range(FILES)]
        (site.root / records[3].source).unlink()
        words = ["mirror", "", "--to", store.url, "--spark", "--files", "--format", "json", "--config", str(settings)]
        assert run_command(application(), arguments=words) == 1
        files = {one["path"]: one for one in json.loads(capsys.readouterr().out)}
        assert len(files) == FILES and files.pop(records[3].path)["outcome"] == "failed"
        assert {one["outcome"] for one in files.values()} == {"copied"}
        replicas = catalogue.replicas([record.path for record in records])
        for record in records:
            held = [(one.url, one.checksum) for one in replicas[record.path]]
            assert held == ([] if record is records[3] else [(store.url_of(record.path), record.checksum)])
            assert record is records[3] or store.checksums(record.path).blake3 == record.checksum
        assert len(list(catalogue.select(Everything()))) == FILES
