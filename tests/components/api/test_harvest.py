"""Harvests: real records become entries, changes and deletions follow, kills cost nothing, no hostile archive."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apbatch.cli.main import application, run_command
from apbatch.errors import ApbatchError, FormatError
from apbatch.formats.oai.elements import elements
from apbatch.formats.oai.namespaces import DC, OAI, OAI_DC
from apbatch.index.backends import open_catalogue
from apbatch.index.catalogue import Catalogue
from apbatch.index.files import FileRecord, State
from apbatch.index.parser import parse_search
from apbatch.index.sql.sqlite import SqliteCatalogue
from apbatch.ingest.harvest.archive import Archive
from apbatch.ingest.harvest.folder import HarvestFolder
from apbatch.ingest.harvest.harvesting import HarvestSummary, harvest_archive
from tests.service import fill, record, serving

HEAD = f'<OAI-PMH xmlns="{OAI}"><responseDate>2026-01-01T00:00:00Z</responseDate>'
IDENTIFY = HEAD + (
    "<Identify><repositoryName>x</repositoryName><protocolVersion>2.0</protocolVersion>"
    "<granularity>YYYY-MM-DD</granularity></Identify></OAI-PMH>"
)


def one(name: str, title: str = "t") -> str:
    dc = f'<oai_dc:dc xmlns:oai_dc="{OAI_DC}" xmlns:dc="{DC}"><dc:title>{title}</dc:title></oai_dc:dc>'
    return f"<record><header><identifier>{name}</identifier></header><metadata>{dc}</metadata></record>"


def listed(*records: str, token: str | None = None) -> str:
    end = "" if token is None else f"<resumptionToken>{token}</resumptionToken>"
    return f"{HEAD}<ListRecords>{''.join(records)}{end}</ListRecords></OAI-PMH>"


@contextmanager
def archive(answer: Callable[[dict[str, str]], Any]) -> Iterator[str]:
    """A server that answers a list with what `answer` makes of the arguments: a text, bytes, or status and headers."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *values: Any) -> None:
            pass

        def do_GET(self) -> None:
            asked = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
            said = IDENTIFY if asked["verb"] == "Identify" else answer(asked)
            status, headers = said if isinstance(said, tuple) else (200, {})
            body = b"" if isinstance(said, tuple) else said.encode() if isinstance(said, str) else said
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/oai"
    finally:
        server.shutdown()
        server.server_close()


def cli(arguments: list[str]) -> int:
    return run_command(application(), arguments=arguments)


def run(url: str, name: str = "there", **options: Any) -> HarvestSummary:
    folder, summary = HarvestFolder(name), HarvestSummary(name)
    with folder.lock():
        harvest_archive(folder, Archive(url, sleep=lambda _: None), summary, **options)
    return summary


def files(name: str = "there") -> set[str]:
    return {path.name.rpartition("-")[0] for path in HarvestFolder(name).records.iterdir()}


def found(catalogue: Catalogue, query: str) -> list[FileRecord]:
    return list(catalogue.select(parse_search(query, catalogue.attributes())))


def test_records_of_kcdc_become_entries_with_licence_and_doi(home: Path, data: Path, capsys: Any) -> None:
    folder = data / "kascade" / "kcdc_oai_dc"
    arguments = ["harvest", str(folder), "--name", "kcdc", "--experiment", "KASCADE", "--format", "json"]
    assert cli(arguments) == 0
    (summary,) = json.loads(capsys.readouterr().out)
    assert {**summary, "site": ""} == {"site": "", "new": 5, "changed": 0, "unchanged": 0, "deleted": 0, "refused": 0,
                                       "quarantined": 0}  # fmt: skip
    with open_catalogue(f"sqlite:///{home}/catalogue.sqlite") as catalogue:
        records = found(catalogue, "doi = '10.17616/R3TS4P' and licence like 'End User Licence Agreement%'")
        assert len(records) == 5
        (grande,) = found(catalogue, "title like 'KASCADE-GRANDE%' and data_format = 'ASCII'")
        assert grande.attributes["publisher"] == "KASCADE Cosmic Ray Data Centre (KCDC)"
        assert grande.attributes["licence_url"].endswith("/EULA.pdf") and grande.attributes["extent"] == "3002 MB"
        assert grande.attributes["url"].endswith("/KASCADE-GRANDE_ReducedData_runs_4775-7398_ASCII.zip")
        assert grande.attributes["published"] == date(2020, 5, 15)
        assert grande.attributes["abstract"] == "Analysing data of the GRANDE Array only"
        assert (grande.experiment, grande.format, grande.path[:14]) == ("KASCADE", "oai-record", "/kascade/kcdc/")
        revision = catalogue.revision()
        assert cli(arguments) == 0  # nothing changed: nothing is written
        assert json.loads(capsys.readouterr().out)[0]["unchanged"] == 5 and catalogue.revision() == revision
    assert cli(["cat", "x"]) == 2 and cli(["harvest", str(folder / "none.xml"), "--name", "kcdc"]) == 2


def test_a_harvest_of_our_own_service_follows_changes_and_deletions(
    home: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SqliteCatalogue(f"sqlite:///{tmp_path}/there.sqlite") as there, serving(tmp_path / "there", there) as running:
        fill(there, files=250)
        arguments = ["harvest", f"{running.url}/oai", "--name", "peer", "--set", "taiga", "--format", "json"]

        def harvest(*options: str) -> dict[str, int]:
            assert cli([*arguments, *options]) == 0
            (summary,) = json.loads(capsys.readouterr().out)
            return {name: value for name, value in summary.items() if value and name not in ("site", "unchanged")}

        assert harvest() == {"new": 250}
        there.upsert([replace(record(3), attributes={}, night=None, time_start=None, size=5), record(999)])
        there.remove([record(4).path])
        there.upsert([record(5, state=State.MISSING)])
        assert harvest() == {"new": 1, "changed": 1, "deleted": 2}
        with open_catalogue(f"sqlite:///{home}/catalogue.sqlite") as here:
            titles = {one.attributes["title"] for one in found(here, "site = 'peer'")}
            assert titles == {f"run{number:04d}.dat" for number in {*range(250), 999} - {4, 5}}
            assert found(here, "title = 'run0003.dat'")[0].attributes["extent"] == "5 bytes"
        assert harvest("--prefix", "datacite")["changed"] == 249  # another format: everything anew
        with open_catalogue(f"sqlite:///{home}/catalogue.sqlite") as here:
            assert len(found(here, "creators = 'TAIGA' and publisher = 'apbatch'")) == 249
        there.remove([record(number).path for number in range(250)] + [record(999).path])
        assert harvest("--again", "--prefix", "datacite")["deleted"] == 249
        with open_catalogue(f"sqlite:///{home}/catalogue.sqlite") as here:
            assert found(here, "site = 'peer'") == []


def test_a_harvest_that_was_cut_off_goes_on_there(home: Path) -> None:
    asked: list[dict[str, str]] = []
    cut = [True]

    def answer(arguments: dict[str, str]) -> str | bytes:
        asked.append(arguments)
        token = arguments.get("resumptionToken")
        if token is None:
            return listed(one("a"), one("b"), token="2")
        if cut[0]:
            return listed(one("c"), one("d")).encode()[:-60]
        return listed(one("c"), one("d"))

    with archive(answer) as url:
        with pytest.raises(FormatError, match="no whole XML"):
            run(url)
        cut[0] = False
        summary = run(url)
        assert asked[-1] == {"verb": "ListRecords", "resumptionToken": "2"} and summary.records == 2
        assert files() == {"a", "b", "c", "d"}
        run(url)
        assert asked[-2] == {"verb": "ListRecords", "metadataPrefix": "oai_dc", "from": "2026-01-01"}


def test_an_expired_token_begins_the_list_anew(home: Path) -> None:
    expired = f'{HEAD}<error code="badResumptionToken">old</error></OAI-PMH>'
    answers = [listed(one("a"), token="1"), (500, {}), expired, listed(one("a"), one("b"))]
    with archive(lambda _: answers.pop(0)) as url:
        with pytest.raises(ApbatchError, match="status 500"):
            run(url)
        run(url)
    assert files() == {"a", "b"} and not answers


def test_everything_anew_removes_what_the_archive_no_longer_has(home: Path) -> None:
    answers = [listed(one("a"), one("b")), listed(one("b", "new"), token="x"), listed(one("c"))]
    with archive(lambda _: answers.pop(0)) as url:
        run(url)
        summary = run(url, again=True)
    assert files() == {"b", "c"} and (summary.new, summary.changed, summary.deleted) == (1, 1, 1)


def test_an_archive_that_is_busy_is_asked_again_and_not_for_ever(home: Path) -> None:
    answers: list[Any] = [(503, {"Retry-After": "7"}), (429, {}), listed(one("a"))]
    waits: list[float] = []
    with archive(lambda _: answers.pop(0)) as url:
        folder, summary = HarvestFolder("busy"), HarvestSummary("busy")
        with folder.lock():
            harvest_archive(folder, Archive(url, sleep=waits.append), summary)
        assert summary.new == 1 and waits == [7.0, 2.0]
        answers[:] = [(503, {"Retry-After": "99999"})]
        with pytest.raises(ApbatchError, match="it asks to wait 99999 s"):
            run(url)


LAUGHS = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]>'
HOSTILE = {
    "entities": (LAUGHS + listed(one("a", "&b;")), "document type"),
    "file": ('<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>' + listed(one("a", "&a;")), "document type"),
    "depth": (listed("<a>" * 200 + "</a>" * 200), "more than 100 deep"),
    "long": (listed(one("a", "x" * 5_000_000)), "longer than"),
    "many": (listed(one("a", "<b/>" * 30_000)), "more than 20000 elements"),
    "page": ("<html><body>Service is down</body></html>", "no answer of OAI-PMH"),
    "text": ("down for maintenance", "no whole XML"),
    "empty": ("", "no whole XML"),
    "undated": (f'<OAI-PMH xmlns="{OAI}"><ListRecords/></OAI-PMH>', "no answer of OAI-PMH"),
    "circle": (listed(one("a"), token="same"), "in a circle"),
    "nothing": (listed(token="{number}"), "in a circle"),
    "token": (listed(one("a"), token="x" * 10_000), "a resumption token of 10000"),
    "refusal": (f'{HEAD}<error code="badArgument">no</error></OAI-PMH>', "badArgument"),
    "status": ((500, {}), "status 500"),
    "elsewhere": ((302, {"Location": "ftp://127.0.0.1/x"}), "can't be reached"),
    "round": ((302, {"Location": "/oai?verb=ListRecords"}), "can't be reached"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_or_broken_archive_is_refused_with_its_address(home: Path, kind: str) -> None:
    said, message = HOSTILE[kind]
    number = iter(range(1000))
    with (
        archive(lambda _: said.replace("{number}", str(next(number))) if isinstance(said, str) else said) as url,
        pytest.raises(ApbatchError, match=message) as failure,
    ):
        run(url)
    assert "127.0.0.1" in (failure.value.where or "")


def test_a_compressed_answer_that_grows_is_cut_off(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gzip

    monkeypatch.setattr("apbatch.ingest.harvest.archive._LARGEST", 1_000_000)
    body = gzip.compress(listed(one("a"), " " * 50_000_000).encode())

    def answer(_: dict[str, str]) -> bytes:
        return body

    with archive(answer) as url:
        opened = Archive(url)
        real = opened._pool.request

        def packed(*arguments: Any, **options: Any) -> Any:
            response = real(*arguments, **options)
            if "ListRecords" in str(options.get("fields")):
                response.headers["Content-Encoding"] = "gzip"
            return response

        monkeypatch.setattr(opened._pool, "request", packed)
        folder = HarvestFolder("bomb")
        with folder.lock(), pytest.raises(FormatError, match="more than 0 MiB"):
            harvest_archive(folder, opened, HarvestSummary("bomb"))


def test_more_records_than_wanted_and_bad_ones_among_good(home: Path) -> None:
    bare = "<record><header><identifier>bare</identifier></header></record>"
    answers = [listed(one("../../etc/x"), bare, one(""), one("b" * 3000), one("ü\u202e"), one("ok"))]
    with archive(lambda _: answers[0]) as url:
        summary = run(url)
        assert summary.new == 3 and summary.refused.count == 3
        assert {path.parent for path in HarvestFolder("there").records.rglob("*.xml")} == {
            HarvestFolder("there").records
        }
        with pytest.raises(ApbatchError, match="more than 2 records"):
            run(url, name="other", most=2)


@settings(max_examples=40)
@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_read(content: bytes) -> None:
    try:
        for _ in elements([content[:7], content[7:]], ["a"], "x"):
            pass
    except FormatError as error:
        assert (error.where or "").startswith("x:")


def test_records_cut_anywhere_are_refused_and_stop_no_other(home: Path, tmp_path: Path, sample: Path) -> None:
    whole = (sample / "records" / "record1.xml").read_bytes()
    folder = tmp_path / "files"
    folder.mkdir()
    for place in range(1, len(whole) - 2, 150):
        (folder / f"cut{place}.xml").write_bytes(whole[:place])
    (folder / "whole.xml").write_bytes(whole)
    assert cli(["harvest", str(folder), "--name", "cuts"]) == 0
    assert files("cuts") == {"whole.xml"}
    assert cli(["harvest", str(folder / "cut1.xml"), "--name", "cuts"]) == 1
