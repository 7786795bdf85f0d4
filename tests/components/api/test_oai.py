"""OAI-PMH as harvesters speak it: every record once, deletions, dates, sets, errors, and what may not be seen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from datacite import schema45
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree
from oaipmh_scythe import Scythe

from apbatch.api.oai.datestamps import Datestamps
from apbatch.api.oai.markup import element
from apbatch.api.oai.naming import identifier_of, path_of, sets_of
from apbatch.api.oai.requests import ProtocolError, read_request, read_span
from apbatch.api.oai.resumption import Position, read_token, write_token
from apbatch.config import OaiSettings, ServiceSettings
from apbatch.formats.oai.attributes import ALL
from apbatch.index.files import State
from apbatch.index.sql.sqlite import SqliteCatalogue
from tests.service import Running, fill, record, serving

OAI = "{http://www.openarchives.org/OAI/2.0/}"
DC = "{http://purl.org/dc/elements/1.1/}"
KERNEL = "{http://datacite.org/schema/kernel-4}"
ODD = "/taiga/site/ü & <b>\x07'%41.dat"
SETTINGS = ServiceSettings(
    requests_per_second=0, oai=OaiSettings(name="Sky & Co", page=50, namespace="sky.example.org")
)


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqliteCatalogue]:
    with SqliteCatalogue(f"sqlite:///{tmp_path_factory.mktemp('oai')}/c.sqlite") as catalogue:
        catalogue.declare(ALL)
        fill(catalogue)
        licensed = {"title": "A & B", "creators": "Ann; Bob", "doi": "10.17616/R3TS4P", "licence": "CC BY 4.0",
                    "licence_url": "https://creativecommons.org/licenses/by/4.0/"}  # fmt: skip
        odd = replace(record(500), path=ODD, place=ODD, source=ODD[12:], attributes=licensed)
        bad = [record(501, state=State.QUARANTINED, reason="broken"), record(502)]
        catalogue.upsert([odd, *bad])
        catalogue.remove([bad[1].path])
        yield catalogue


@pytest.fixture(scope="module")
def running(catalogue: SqliteCatalogue, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving(tmp_path_factory.mktemp("home"), catalogue, settings=SETTINGS) as running:
        yield running


@pytest.fixture(scope="module")
def guarded(catalogue: SqliteCatalogue, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving(tmp_path_factory.mktemp("home"), catalogue, auth=True, settings=SETTINGS) as running:
        yield running


def ask(running: Running, query: str, **headers: str) -> Any:
    answer = running.get(f"/oai?{query}", **headers)
    assert answer.status == 200 and answer.headers["content-type"] == "text/xml; charset=utf-8"
    return etree.fromstring(answer.data)


def code(running: Running, query: str) -> str | None:
    error = ask(running, query).find(f"{OAI}error")
    return None if error is None else error.get("code")


def identifiers(running: Running, query: str, **headers: str) -> tuple[list[str], set[str], int]:
    """All identifiers of a list, those that are deleted, and how many answers there were."""
    every: list[str] = []
    deleted: set[str] = set()
    answers = 0
    while True:
        answer = ask(running, query, **headers)
        answers += 1
        for header in answer.iter(f"{OAI}header"):
            every.append(header.findtext(f"{OAI}identifier"))
            deleted |= {every[-1]} if header.get("status") == "deleted" else set()
        token = answer.find(f".//{OAI}resumptionToken")
        if token is None or not token.text:
            return every, deleted, answers
        query = f"verb={query.partition('&')[0].removeprefix('verb=')}&resumptionToken={quote(token.text)}"


def test_a_public_harvester_gets_every_file_once_and_deletions(running: Running, catalogue: SqliteCatalogue) -> None:
    with Scythe(f"{running.url}/oai") as scythe:
        identify = scythe.identify()
        assert (identify.repositoryName, identify.protocolVersion) == ("Sky & Co", "2.0")
        assert (identify.deletedRecord, identify.granularity) == ("transient", "YYYY-MM-DDThh:mm:ssZ")
        formats = {one.metadataPrefix for one in scythe.list_metadata_formats()}
        assert formats == {"oai_dc", "datacite"}
        assert {one.setSpec for one in scythe.list_sets()} == {"taiga", "taiga:site", "secret", "secret:site"}
        records = list(scythe.list_records(metadata_prefix="oai_dc"))
        there = [one for one in records if not one.deleted]
        gone = {one.header.identifier for one in records if one.deleted}
        expected = {one.path for one in catalogue.select(_everything())}
        assert len(there) == len({one.header.identifier for one in there}) == 126
        assert {path_of("sky.example.org", one.header.identifier) for one in there} == expected
        assert gone == {identifier_of("sky.example.org", f"/taiga/site/run0{n}.dat") for n in (501, 502)}
        headers = list(scythe.list_identifiers(metadata_prefix="datacite", set_="secret"))
        assert len(headers) == 5 and all(one.setSpecs == ["secret:site"] for one in headers)
        one = scythe.get_record(identifier=identifier_of("sky.example.org", ODD), metadata_prefix="oai_dc")
        assert one.metadata["rights"] == ["CC BY 4.0", "https://creativecommons.org/licenses/by/4.0/"]
        assert one.metadata["title"] == ["A & B"] and one.metadata["creator"] == ["Ann", "Bob"]
        assert "https://doi.org/10.17616/R3TS4P" in one.metadata["identifier"]


def _everything() -> Any:
    from apbatch.index.query import Search

    return Search()


def test_lists_come_in_pages_and_a_token_can_be_used_again(running: Running) -> None:
    every, _, answers = identifiers(running, "verb=ListIdentifiers&metadataPrefix=oai_dc")
    assert (len(every), len(set(every)), answers) == (128, 128, 3)
    first = ask(running, "verb=ListRecords&metadataPrefix=oai_dc").find(f".//{OAI}resumptionToken")
    again = [ask(running, f"verb=ListRecords&resumptionToken={first.text}") for _ in range(2)]
    assert etree.tostring(again[0][2]) == etree.tostring(again[1][2])
    assert first.get("cursor") == "0" and again[0].find(f".//{OAI}resumptionToken").get("cursor") == "50"


def test_datacite_metadata_is_what_the_datacite_package_would_write(running: Running) -> None:
    answer = ask(running, "verb=ListRecords&metadataPrefix=datacite&set=taiga")
    resources = list(answer.iter(f"{KERNEL}resource"))
    named = identifier_of("sky.example.org", ODD)
    odd = ask(running, f"verb=GetRecord&metadataPrefix=datacite&identifier={quote(named)}").find(f".//{KERNEL}resource")
    assert len(resources) == 50
    for resource in (*resources, odd):
        data = _as_json(resource)
        schema45.validator.validate(data)
        theirs = etree.fromstring(schema45.tostring(data).encode())
        own = ("identifier", resource.findtext(f"{KERNEL}identifier"), (("identifierType", "OAI"),))
        assert sorted(_facts(resource)) == sorted([*_facts(theirs), own])
    assert odd.findtext(f".//{KERNEL}rights") == "CC BY 4.0"


def _facts(resource: Any) -> list[tuple[str, str, tuple[tuple[str, str], ...]]]:
    """Path of names, text and attributes of every element that holds text."""
    found = []
    for one in resource.iter():
        if len(one) == 0 and one is not resource:
            names = [etree.QName(part).localname for part in (*list(one.iterancestors())[:-1], one)]
            depth = [part for part in one.iterancestors() if part is not resource and resource in part.iterancestors()]
            path = "/".join([etree.QName(part).localname for part in reversed(depth)] + names[-1:])
            found.append((path, one.text or "", tuple(sorted(one.attrib.items()))))
    return found


def _as_json(resource: Any) -> dict[str, Any]:
    """A record as the JSON of DataCite; our identifier is none of DOI, which that has no place for."""

    def all_of(path: str, name: str, **renamed: str) -> list[dict[str, str]]:
        return [
            {name: one.text, **{renamed.get(key, key): value for key, value in one.attrib.items()}}
            for one in resource.findall("/".join(KERNEL + part for part in path.split("/")))
        ]

    kind = resource.find(f"{KERNEL}resourceType")
    data: dict[str, Any] = {
        "creators": all_of("creators/creator/creatorName", "name"),
        "titles": all_of("titles/title", "title"),
        "publisher": {"name": resource.findtext(f"{KERNEL}publisher")},
        "publicationYear": resource.findtext(f"{KERNEL}publicationYear"),
        "subjects": all_of("subjects/subject", "subject"),
        "dates": all_of("dates/date", "date"),
        "types": {"resourceType": kind.text, "resourceTypeGeneral": kind.get("resourceTypeGeneral")},
        "alternateIdentifiers": all_of("alternateIdentifiers/alternateIdentifier", "alternateIdentifier"),
        "relatedIdentifiers": all_of("relatedIdentifiers/relatedIdentifier", "relatedIdentifier"),
        "sizes": [one.text for one in resource.findall(f"{KERNEL}sizes/{KERNEL}size")],
        "formats": [one.text for one in resource.findall(f"{KERNEL}formats/{KERNEL}format")],
        "rightsList": all_of("rightsList/rights", "rights", rightsURI="rightsUri"),
        "descriptions": all_of("descriptions/description", "description"),
        "schemaVersion": "http://datacite.org/schema/kernel-4",
    }
    return {name: value for name, value in data.items() if value}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", "badVerb"), ("verb=Drop", "badVerb"), ("verb=Identify&verb=Identify", "badVerb"),
        ("verb=Identify&set=a", "badArgument"), ("verb=ListRecords", "badArgument"),
        ("verb=ListRecords&metadataPrefix=oai_dc&metadataPrefix=oai_dc", "badArgument"),
        ("verb=ListRecords&metadataPrefix=oai_dc&resumptionToken=x", "badArgument"),
        ("verb=ListRecords&metadataPrefix=marc21", "cannotDisseminateFormat"),
        ("verb=ListRecords&metadataPrefix=a%20b", "badArgument"),
        ("verb=ListRecords&metadataPrefix=oai_dc&from=yesterday", "badArgument"),
        ("verb=ListRecords&metadataPrefix=oai_dc&from=2017-02-30", "badArgument"),
        ("verb=ListRecords&metadataPrefix=oai_dc&from=2017-01-01&until=2018-01-01T00:00:00Z", "badArgument"),
        ("verb=ListRecords&metadataPrefix=oai_dc&from=2019-01-01&until=2018-01-01", "badArgument"),
        ("verb=ListRecords&metadataPrefix=oai_dc&until=2001-01-01", "noRecordsMatch"),
        ("verb=ListRecords&metadataPrefix=oai_dc&from=2999-01-01", "noRecordsMatch"),
        ("verb=ListRecords&metadataPrefix=oai_dc&set=nowhere", "noRecordsMatch"),
        ("verb=ListRecords&metadataPrefix=oai_dc&set=a%2Fb", "badArgument"),
        ("verb=ListRecords&resumptionToken=nonsense", "badResumptionToken"),
        ("verb=ListSets&resumptionToken=nonsense", "badResumptionToken"),
        ("verb=GetRecord&metadataPrefix=oai_dc&identifier=oai:other:x", "idDoesNotExist"),
        ("verb=ListMetadataFormats&identifier=oai:sky.example.org:taiga/none", "idDoesNotExist"),
        ("verb=Identify&x=%ff%0d%0a", "badArgument"),
    ],
)  # fmt: skip
def test_errors_of_the_protocol(running: Running, query: str, expected: str) -> None:
    assert code(running, query) == expected


def test_a_request_by_post_is_answered_alike(running: Running) -> None:
    body = b"verb=ListIdentifiers&metadataPrefix=oai_dc&set=secret"
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = running.pool.request("POST", f"{running.url}/oai", body=body, headers=headers)
    assert len(list(etree.fromstring(answer.data).iter(f"{OAI}header"))) == 5


def test_what_may_not_be_seen_is_in_no_list_no_set_and_no_error(guarded: Running) -> None:
    every, _, _ = identifiers(guarded, "verb=ListIdentifiers&metadataPrefix=oai_dc")
    assert every and all(":taiga/" in one for one in every)
    assert "secret" not in guarded.get("/oai?verb=ListSets").data.decode()
    hidden = "verb=GetRecord&metadataPrefix=oai_dc&identifier=oai:sky.example.org:secret/site/run0001.dat"
    missing = hidden.replace("run0001", "run9999")
    answers = [ask(guarded, query).findtext(f"{OAI}error") for query in (hidden, missing)]
    assert answers[0] == answers[1] and code(guarded, hidden) == "idDoesNotExist"
    assert code(guarded, "verb=ListRecords&metadataPrefix=oai_dc&set=secret") == "noRecordsMatch"
    token = write_token(Position("ListRecords", "oai_dc", "secret", 0, 5, False))  # a forged one asks no less
    forged = guarded.get(f"/oai?verb=ListRecords&resumptionToken={token}").data.decode()
    assert "run000" not in forged
    assert guarded.get("/oai?verb=Identify", Authorization="Bearer wrong").status == 401


def test_a_follower_by_date_gets_what_changed_and_what_went(tmp_path: Path) -> None:
    with SqliteCatalogue(f"sqlite:///{tmp_path}/c.sqlite") as catalogue:
        fill(catalogue, files=10)
        clock = [1_000_000]
        with (
            pytest.MonkeyPatch.context() as patch,
            serving(tmp_path, catalogue, settings=SETTINGS) as running,
        ):
            patch.setattr(Datestamps.__init__, "__defaults__", (lambda: clock[0],))
            first = ask(running, "verb=ListRecords&metadataPrefix=oai_dc")
            assert first.findtext(f"{OAI}responseDate") == "1970-01-12T13:46:40Z"
            catalogue.upsert([record(3, size=7), record(77)])
            catalogue.remove([record(4).path])
            catalogue.upsert([record(5, state=State.MISSING)])
            clock[0] += 100
            since = first.findtext(f"{OAI}responseDate").replace("40Z", "41Z")
            every, deleted, _ = identifiers(running, f"verb=ListRecords&metadataPrefix=oai_dc&from={since}")
            names = {one.rpartition("/")[2] for one in every}
            assert names == {"run0003.dat", "run0077.dat", "run0004.dat", "run0005.dat"}
            assert {one.rpartition("/")[2] for one in deleted} == {"run0004.dat", "run0005.dat"}
            before, _, _ = identifiers(running, f"verb=ListRecords&metadataPrefix=oai_dc&until={since}")
            assert len(before) == 15 - 3  # changed since: no longer of that time
            catalogue.upsert([record(4)])  # back again: one record, not deleted
            clock[0] += 100
            every, deleted, _ = identifiers(running, f"verb=ListRecords&metadataPrefix=oai_dc&from={since}")
            assert sum("run0004" in one for one in every) == 1 and not any("run0004" in one for one in deleted)


def test_a_list_goes_on_while_files_change(tmp_path: Path) -> None:
    with (
        SqliteCatalogue(f"sqlite:///{tmp_path}/c.sqlite") as catalogue,
        serving(tmp_path, catalogue, settings=SETTINGS) as running,
    ):
        fill(catalogue, files=60)
        answer = ask(running, "verb=ListRecords&metadataPrefix=oai_dc")
        token = answer.find(f".//{OAI}resumptionToken").text
        held = {one.text for one in answer.iter(f"{OAI}identifier")}
        catalogue.upsert([record(number, size=1) for number in range(60)])
        catalogue.upsert([record(number, "secret", size=1) for number in range(5)])
        rest, _, _ = identifiers(running, f"verb=ListRecords&resumptionToken={quote(token)}")
        assert held | set(rest) == {
            identifier_of("sky.example.org", record(number, *experiment).path)
            for experiment, files in (((), 60), (("secret",), 5)) for number in range(files)
        }  # fmt: skip


def test_datestamps_never_lose_a_change(tmp_path: Path) -> None:
    clock, revision = [100.5], [5]
    stamps = Datestamps(tmp_path / "d.sqlite", lambda: clock[0])
    assert (stamps.read(lambda: revision[0]).time, stamps.earliest()) == (100, 100)
    revision[0] = 6
    assert stamps.read(lambda: revision[0]).revision == 6 and stamps.of([5, 6]) == [100, 100]
    clock[0], revision[0] = 50.0, 7  # the clock was set back: datestamps grow nevertheless
    stamps.read(lambda: revision[0])
    assert stamps.of([7]) == [100] and stamps.last_revision(99) == 0 and stamps.last_revision(100) == 7
    clock[0], revision[0] = 200.0, 3  # another catalogue
    stamps.read(lambda: revision[0])
    assert stamps.of([1, 3]) == [200, 200] and stamps.last_revision(150) == 0


def test_many_datestamps_are_thinned_out_and_only_get_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apbatch.api.oai.datestamps._MARKS", 20)
    clock = [0]
    stamps = Datestamps(tmp_path / "d.sqlite", lambda: clock[0])
    for number in range(1, 60):
        clock[0] = number
        stamps.read(lambda number=number: number)
    got = stamps.of(list(range(1, 60)))
    assert (
        got == sorted(got)
        and all(one >= number for number, one in enumerate(got, 1))
        and got[-8:] == list(range(52, 60))
    )


@settings(max_examples=50)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40))
def test_any_path_has_an_identifier_and_a_set_that_lead_back(name: str) -> None:
    path = f"/{name}"
    identifier = identifier_of("a.b", path)
    if not name.startswith("/"):
        assert path_of("a.b", identifier) == path
    assert identifier.isascii() and " " not in identifier
    for one in sets_of(f"/{name.replace('/', '')}x/s/f"):
        assert read_request([("verb", "ListRecords"), ("metadataPrefix", "x"), ("set", one)])
    assert etree.fromstring(element("a", name, b=name)).tag == "a"


@settings(max_examples=50)
@given(st.text(max_size=60))
def test_any_token_is_refused_or_read(token: str) -> None:
    with pytest.raises(ProtocolError):
        read_token(token, "ListRecords", 10)


def test_tokens_are_read_back_and_only_by_their_own_list() -> None:
    position = Position("ListRecords", "oai_dc", "a:b", 3, 9, True, 200)
    assert read_token(write_token(position), "ListRecords", 9) == position
    for verb, revision in (("ListIdentifiers", 9), ("ListRecords", 8)):
        with pytest.raises(ProtocolError):
            read_token(write_token(position), verb, revision)


def test_spans_hold_both_ends() -> None:
    assert read_span("1970-01-01", "1970-01-01") == (0, 86_399)
    assert read_span("1970-01-01T00:00:05Z", None) == (5, None)
