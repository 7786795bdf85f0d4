"""Site files: what is taken from them, and what is refused with its line."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apbatch.errors import NotFoundError, UsageError
from apbatch.index.backends import open_catalogue
from apbatch.ingest.opening import open_plain
from apbatch.ingest.patterns import compile_glob, compile_pattern, decode_path, encode_path
from apbatch.ingest.site import Site
from apbatch.ingest.sites import add_site, load_site, read_site_file, remove_site, resolve_site, sites

MINIMAL = "name: one\nexperiment: TAIGA\nroot: .\n"


def write(tmp_path: Path, text: str, name: str = "site.yaml") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def site(attributes: object = (), **more: object) -> Site:
    return Site.model_validate({"name": "s", "experiment": "E", "root": "/tmp", "attributes": attributes, **more})


def test_a_relative_root_is_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    path = write(tmp_path / "conf", "name: one\nexperiment: TAIGA\nroot: ../data\n")
    assert read_site_file(path).root == str(tmp_path / "data")


def test_variables_and_home_are_expanded_in_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISK", "/disk7")
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("APBATCH_HOME", "/state")
    for root, wanted in (("$DISK/taiga", "/disk7/taiga"), ("~/d", "/home/me/d"), ("'{home}/sim'", "/state/sim")):
        assert read_site_file(write(tmp_path, MINIMAL.replace("root: .", f"root: {root}"))).root == wanted


def test_a_variable_that_is_not_set_is_an_error_with_its_line(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL.replace("root: .", "root: $NOWHERE_AT_ALL/x"))
    with pytest.raises(UsageError, match="NOWHERE_AT_ALL is not set") as caught:
        read_site_file(path)
    assert caught.value.where == f"{path}:3"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MINIMAL + "exlude: ['*.txt']\n", ":4: unknown key 'exlude'; did you mean 'exclude'"),
        ("name: one\nroot: .\n", "key 'experiment' is missing"),
        (MINIMAL.replace("one", "a/b"), ":1: name:"),
        (MINIMAL.replace("TAIGA", "a/b"), ":2: experiment:"),
        (MINIMAL + "camera: TAIGA-IACT1\n", ":4: camera:.*TAIGA-IACT01"),
        (MINIMAL + "attributes:\n  - {pattern: '{x'}\n", ":5: .*stray"),
        (MINIMAL + "attributes:\n  - {pattern: '{x:integer}'}\n", "unknown type 'integer'"),
        (MINIMAL + "attributes:\n  - {regex: '(?P<x'}\n", "not a regular expression"),
        (MINIMAL + "attributes:\n  - {name: zenith, unit: degrees_of_freedom, value: 3}\n", "unknown unit"),
        (MINIMAL + "attributes:\n  - {name: size, value: 3}\n", "'size' is a field of every file"),
        (MINIMAL + "attributes:\n  - {name: Zenith, value: 3}\n", "not a name of an attribute"),
        (MINIMAL + "attributes:\n  - {name: x, value: 3, type: string}\n", "not of type string"),
        (MINIMAL + "attributes:\n  - {name: x, vlaue: 3}\n", "unknown key .*vlaue"),
        (MINIMAL + "calibration: {factor: x}\n", "unknown key 'calibration.factor'; did you mean 'factors'"),
        ("- a\n", "a mapping"),
        ("name: [\n", "not valid YAML"),
    ],
)
def test_a_wrong_site_file_is_refused_with_the_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_site_file(write(tmp_path, text))


def test_a_site_is_kept_as_it_was_read(home: Path, tmp_path: Path) -> None:
    path = write(
        tmp_path,
        MINIMAL + "include: '*.001'\nattributes:\n  - {pattern: 'BSM{cluster:int}/*'}\n"
        "  - {name: night, value: 2017-10-28}\ncalibration: {factors: F.txt}\n",
    )
    added, outcome = add_site(path)
    assert outcome == "added"
    assert load_site("one") == added == read_site_file(path)
    assert load_site("one").calibration_file("factors") == tmp_path / "F.txt"
    assert add_site(path)[1] == "unchanged"
    path.write_text(MINIMAL)
    assert add_site(path)[1] == "changed"
    assert [known.name for known in sites()] == ["one"]
    with open_catalogue(f"sqlite:///{home}/catalogue.sqlite") as catalogue:
        remove_site(catalogue, "one")
    assert sites() == []


def test_an_unknown_site_names_the_nearest(home: Path, tmp_path: Path) -> None:
    add_site(write(tmp_path, MINIMAL))
    with pytest.raises(NotFoundError) as caught:
        load_site("ones")
    assert caught.value.nearest == "one"


def test_a_root_that_is_no_folder_is_refused_when_added(home: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="is not a folder"):
        add_site(write(tmp_path, MINIMAL.replace("root: .", "root: nowhere")))
    assert sites() == []


def test_a_site_file_can_stand_for_its_site(home: Path, tmp_path: Path) -> None:
    assert resolve_site(str(write(tmp_path, MINIMAL))).name == "one"
    assert load_site("one").name == "one"


def test_the_sites_that_come_along_are_valid() -> None:
    folder = Path(__file__).resolve().parents[3] / "conf" / "sites"
    found = {path.stem: read_site_file(path).name for path in folder.glob("*.yaml")}
    assert "simulation" in found
    assert all(stem == name for stem, name in found.items())


def test_paths_give_typed_attributes() -> None:
    taiga = site([{"pattern": "BSM{cluster:int}/{*}.{part:int}"}])
    assert taiga.values("2017/BSM07/28107007.010") == {"cluster": 7, "part": 10}
    assert taiga.values("2017/XBSM07/28107007.010") == {}
    assert [(a.name, a.type) for a in taiga.declared] == [("part", "integer")]


def test_dates_and_numbers_come_from_folders() -> None:
    rules = site(
        [{"pattern": "{night:%d%m%y}/zd{zenith:float}/**"}, {"name": "zenith", "type": "number", "unit": "deg"}]
    )
    assert rules.values("281017/zd20.5/a/b") == {"night": date(2017, 10, 28), "zenith": 20.5}
    assert rules.values("321017/zd20.5/a/b") == {"zenith": 20.5}  # no such day
    assert rules.declared[0].unit == "deg"


def test_a_regular_expression_gives_attributes_of_the_declared_type() -> None:
    rules = site([{"regex": r"_run(?P<run>\d+)_(?P<mode>on|off)"}, {"name": "mode", "type": "string"}])
    assert rules.values("x/a_run0012_off.dat") == {"run": 12, "mode": "off"}


def test_constants_can_be_a_mapping_and_paths_win_over_them() -> None:
    rules = site({"primary": "gamma", "picture": {"value": 14, "unit": "pe", "type": "number"}, "run": 5})
    assert rules.values("a") == {"primary": "gamma", "picture": 14.0, "run": 5}
    rules = site([{"name": "run", "value": 5}, {"pattern": "run{run:int}"}])
    assert (rules.values("a")["run"], rules.values("run7")["run"]) == (5, 7)


@pytest.mark.parametrize(
    ("glob", "yes", "no"),
    [
        ("*.txt", ["a.txt", "x/y/b.txt"], ["a.txt2", "txt"]),
        ("BSM*/*.001", ["BSM01/a.001"], ["x/BSM01/a.001", "BSM01/b/a.001"]),
        ("**/BSM*/*", ["BSM01/a", "x/y/BSM01/a"], ["BSM01"]),
        ("logs", ["logs", "logs/a", "x/logs/a"], ["logs2/a"]),
        ("/logs", ["logs/a"], ["x/logs/a"]),
        ("a?c", ["abc"], ["a/c", "abbc"]),
    ],
)
def test_include_and_exclude_patterns(glob: str, yes: list[str], no: list[str]) -> None:
    pattern = compile_glob(glob)
    assert [text for text in yes if not pattern.match(text)] == []
    assert [text for text in no if pattern.match(text)] == []


def test_a_name_is_given_once_in_a_pattern() -> None:
    with pytest.raises(ValueError, match="twice"):
        compile_pattern("{a}/{a}")


def test_a_date_is_made_of_parts_that_are_there() -> None:
    with pytest.raises(ValueError, match="a date is made of"):
        compile_pattern("{a:%Q%m%d}")


@given(st.binary(min_size=1, max_size=60))
def test_every_name_comes_back_from_its_text(name: bytes) -> None:
    text = encode_path(name)
    assert decode_path(text) == name
    assert text.encode("utf-8")  # no surrogates: any catalogue can hold it
    assert not any(character in text for character in "\n\r\0\x1b")


def test_ordinary_names_stay_as_they_are() -> None:
    for name in ("BSM01/28107001.001", "ночь 1/файл.dat", "a+b (2).txt"):
        assert encode_path(name.encode()) == name


def test_a_source_can_not_leave_the_root() -> None:
    for source in ("../x", "a/../../x", "/etc/passwd", "", "a//b", "%2E%2E/x", "a%00"):
        with pytest.raises(UsageError):
            site().local_path(source)


def test_the_logical_path_is_experiment_site_source() -> None:
    one = site(experiment="TAIGA MC")
    assert one.path_of("a/b") == "/taiga-mc/s/a/b"
    assert one.url_of("a/b%FF") == "file:///tmp/a/b" + os.fsdecode(b"\xff")


@pytest.mark.parametrize("target", ["other", "../outside", "fifo"])
def test_a_link_is_never_opened_wherever_it_points(tmp_path: Path, target: str) -> None:
    root = tmp_path / "site"
    root.mkdir()
    (root / "other").write_bytes(b"x")
    (tmp_path / "outside").write_bytes(b"secret")
    os.mkfifo(root / "fifo")
    (root / "link").symlink_to(target)
    with pytest.raises(OSError):
        open_plain(os.fsencode(root / "link"), os.fsencode(root))
    with os.fdopen(open_plain(os.fsencode(root / "other"), os.fsencode(root)), "rb") as file:
        assert file.read() == b"x"
