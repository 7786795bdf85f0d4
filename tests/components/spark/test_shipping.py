"""What is packed for Spark's workers, what never is, and what they are told to lack."""

from __future__ import annotations

import os
import sys
import tarfile
from importlib.metadata import distribution
from pathlib import Path

import pytest
import yaml

from apbatch.config import Settings, SparkSettings, load_settings
from apbatch.errors import MissingSoftwareError, NotFoundError, UsageError
from apbatch.spark.connect import shipping
from apbatch.spark.connect.configuration import Cluster, configuration, worker_python
from apbatch.spark.connect.environment import write_environment
from apbatch.spark.connect.workers import first_line, what_workers_lack


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("APBATCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def add_plugin(folder: Path, *, editable: bool) -> None:
    """A package with a reader, installed into `folder`, with things beside it that are nobody's business."""
    package = folder / "strange_reader"
    (package / "deep").mkdir(parents=True)
    (package / "__init__.py").write_text("class Reader:\n    name = 'strange'\n")
    (package / "deep" / "table.json").write_text("{}")
    for secret in (".env", "id_rsa", "server.pem", "notes.txt", ".netrc", "credentials.csv"):
        (package / secret).write_text("secret")
    info = folder / "strange_reader-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: strange-reader\nVersion: 1\nRequires-Dist: numpy\n")
    (info / "entry_points.txt").write_text("[apbatch.readers]\nstrange = strange_reader:Reader\n")
    (info / "direct_url.json").write_text(
        f'{{"url": "https://user:secret@host/x", "dir_info": {{"editable": {str(editable).lower()}}}}}'
    )
    files = ["strange_reader/__init__.py", "strange_reader/deep/table.json", "../../bin/strange"]
    files += [f"{info.name}/{name}" for name in ("METADATA", "entry_points.txt", "direct_url.json", "RECORD")]
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))


@pytest.mark.parametrize("editable", [True, False])
def test_a_readers_plugin_is_shipped_without_what_lies_beside_it(
    editable: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_plugin(tmp_path / "site", editable=editable)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    found = {one.name: one for one in shipping.needed()}
    files = dict(shipping._files_of(found["strange-reader"]))
    wanted = {"strange_reader/__init__.py", "strange_reader/deep/table.json"}
    info = {f"strange_reader-1.dist-info/{name}" for name in ("METADATA", "entry_points.txt")}
    assert set(files) == wanted | info
    texts = [what if isinstance(what, bytes) else what.read_bytes() for what in files.values()]
    assert not any(b"secret" in text for text in texts)


def test_what_the_steps_need_is_shipped_and_what_trains_is_not() -> None:
    names = {one.name.lower().replace("_", "-") for one in shipping.needed()}
    assert {"numpy", "pyarrow", "numba", "llvmlite", "pandas", "astropy", "pydantic", "hdfs-native"} <= names
    left = {"tensorflow", "tensorflow-cpu", "keras", "horovod", "torch", "tf2onnx", "onnxruntime", "chromo"}
    assert not names & (left | {"pyspark", "py4j", "pytest", "apbatch"})


def test_the_program_is_shipped_with_its_entry_points_and_nothing_but_sources() -> None:
    files = dict(shipping._program_files())
    assert "apbatch/index/cassandra/schema.cql" in files and "apbatch/camera/hillas.py" in files
    (points,) = [what for name, what in files.items() if name.endswith(".dist-info/entry_points.txt")]
    assert isinstance(points, bytes) and b"taiga-raw = apbatch.formats.taiga.raw:TaigaRawReader" in points
    assert not [name for name in files if name.endswith((".pyc", ".nbi")) or "/." in name]


def test_a_requirement_for_tests_only_is_left_and_one_of_a_wanted_extra_is_not() -> None:
    names = {one.name for one in shipping.needed()}
    assert "hypothesis" not in names and "cassandra-driver" in names
    assert distribution("apbatch").name == "apbatch"


def test_the_same_files_give_the_same_archive_whenever_they_were_written(caches: Path, tmp_path: Path) -> None:
    digests = []
    for number in (1, 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        entries: list[tuple[str, Path | bytes]] = [("b", b"bytes")]
        for name, text in (("a.py", "print()\n"), ("run", "#!/bin/sh\n")):
            (folder / name).write_text(text)
            os.utime(folder / name, (number * 1e6, number * 1e6))
            entries.append((name, folder / name))
        (folder / "run").chmod(0o700 if number == 1 else 0o755)
        path = shipping._archive("x", sorted(entries, key=lambda entry: entry[0]))
        digests.append(path.read_bytes())
        path.unlink()
    assert digests[0] == digests[1]


def test_an_archive_is_made_once_and_anew_for_other_content(caches: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = shipping._archive("x", [("a", b"one")])
    assert shipping._archive("x", [("a", b"one")]) == first
    assert capsys.readouterr().err.count("packing") == 1
    assert shipping._archive("x", [("a", b"two")]) != first
    with tarfile.open(first) as tar:
        (member,) = tar.getmembers()
        assert (member.name, member.mode, member.uid, member.mtime) == ("a", 0o644, 0, 946_684_800)
    assert [path.name for path in first.parent.iterdir() if path.name.startswith(".")] == []


def test_a_shipment_joins_what_the_settings_ship(tmp_path: Path) -> None:
    shipment = shipping.Shipment((tmp_path / "p.tar.gz", tmp_path / "l.tar.gz"))
    mine = {"spark.archives": "hdfs:///mine.zip#mine", "spark.executorEnv.PYTHONPATH": "mine"}
    conf = shipping.with_shipment(mine, shipment, yarn=False)
    assert conf["spark.archives"].endswith(",hdfs:///mine.zip#mine") and shipping.is_shipment(conf["spark.archives"])
    assert conf["spark.executorEnv.PYTHONPATH"] == "apbatch-program:apbatch-libraries:mine"
    assert not shipping.is_shipment(mine["spark.archives"])
    assert "spark.archives" not in shipping.with_shipment({}, shipment, yarn=True)


@pytest.mark.parametrize(
    ("trace", "told"),
    [
        (
            "[PYTHON_VERSION_MISMATCH] Python in worker has different version: 3.12 than that in driver: 3.11, PySpark",
            "the workers run Python 3.12, and this is Python 3.11",
        ),
        ('java.io.IOException: Cannot run program "python3.11": error=2, No such file', "no program python3.11"),
        ("ModuleNotFoundError: No module named 'apbatch'", "has no apbatch"),
        ("/opt/bin/python: No module named pyspark.daemon", "has no pyspark.daemon"),
        ("ImportError: /lib/libc.so.6: version `GLIBC_2.34' not found", "GLIBC_2.34"),
    ],
)
def test_what_workers_lack_is_told(trace: str, told: str) -> None:
    error = what_workers_lack(f"Py4JJavaError: …\n{trace}\n\tat org.apache…")
    assert isinstance(error, MissingSoftwareError) and told in error.what and error.remedy


def test_a_python_that_does_not_start_is_told_with_its_last_line() -> None:
    trace = "SparkException: \nError from python worker:\n  Traceback\n  KeyError: 1\nPYTHONPATH was:\n  /x"
    error = what_workers_lack(trace)
    assert error is not None and error.what == "Python does not start on the workers: KeyError: 1"


def test_a_fault_of_another_kind_is_not_taken_for_a_lack() -> None:
    assert what_workers_lack("java.lang.OutOfMemoryError: Java heap space") is None


@pytest.fixture
def no_hadoop(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HADOOP_CONF_DIR", "YARN_CONF_DIR", "PYSPARK_PYTHON", "PYSPARK_GATEWAY_PORT", "CONTAINER_ID"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("no_hadoop")
def test_yarn_without_its_configuration_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="address is not known"):
        Cluster("yarn", SparkSettings(master="yarn"))
    with pytest.raises(NotFoundError, match="no configuration of Hadoop"):
        Cluster("yarn", SparkSettings(master="yarn", hadoop_conf=str(tmp_path)))


@pytest.fixture
def hadoop_conf(no_hadoop: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    folder = tmp_path / "hadoop"
    folder.mkdir()
    (folder / "yarn-site.xml").write_text("<configuration/>")
    monkeypatch.setenv("HADOOP_CONF_DIR", str(folder))
    return str(folder)


def test_workers_elsewhere_are_shipped_to_and_find_python_on_their_path(
    hadoop_conf: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    parcel = shipping.Shipment((tmp_path / "p.tar.gz", tmp_path / "l.tar.gz"))
    monkeypatch.setattr("apbatch.spark.connect.configuration.shipment", lambda: parcel)
    settings = SparkSettings(master="yarn")
    cluster = Cluster("yarn", settings)
    assert worker_python(cluster, settings, {}) == f"python3.{sys.version_info[1]}"
    conf = configuration(cluster, settings, {})
    assert shipping.is_shipment(conf["spark.yarn.dist.archives"])
    assert "spark.driver.host" not in conf and "spark.yarn.jars" not in conf
    already = {"spark.yarn.dist.archives": conf["spark.yarn.dist.archives"]}
    assert "spark.yarn.dist.archives" not in configuration(cluster, settings, already)
    never = configuration(cluster, settings.model_copy(update={"ship": False}), {})
    assert "spark.yarn.dist.archives" not in never


@pytest.mark.usefixtures("no_hadoop")
@pytest.mark.parametrize(("python", "ships"), [(None, False), ("/usr/bin/python3.11", True)])
def test_workers_here_are_shipped_to_only_if_they_run_another_python(
    python: str | None, ships: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    parcel = shipping.Shipment((tmp_path / "p.tar.gz", tmp_path / "l.tar.gz"))
    monkeypatch.setattr("apbatch.spark.connect.configuration.shipment", lambda: parcel)
    settings = SparkSettings(master="spark://127.0.0.1:7077", worker_python=python)
    conf = configuration(Cluster(settings.master, settings), settings, {})
    assert ("spark.archives" in conf) is ships


@pytest.mark.usefixtures("no_hadoop")
def test_a_local_run_has_no_page_and_no_event_log_unless_asked(home: Path) -> None:
    plain = SparkSettings()
    conf = configuration(Cluster("local[2]", plain), plain, {})
    assert conf["spark.ui.enabled"] == "false" and "spark.eventLog.enabled" not in conf
    asked = SparkSettings(ui=True, event_log=True)
    conf = configuration(Cluster("local[2]", asked), asked, {})
    assert conf["spark.ui.enabled"] == "true"
    assert conf["spark.eventLog.dir"] == (home / "spark" / "events").as_uri() and (home / "spark" / "events").is_dir()


def test_what_spark_submit_needs_is_written_with_addresses_filled_in(
    hadoop_conf: str, home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    parcel = shipping.Shipment((tmp_path / "p.tar.gz", tmp_path / "l.tar.gz"))
    monkeypatch.setattr("apbatch.spark.connect.configuration.shipment", lambda: parcel)
    given = Settings(
        spark=SparkSettings(master="yarn"), store="hdfs://nn:8020/data", catalogue="sqlite:///x", events="file:///e"
    )
    variables = write_environment(given)
    assert variables["HADOOP_CONF_DIR"] == hadoop_conf
    assert load_settings(Path(variables["APBATCH_CONFIG"])) == given
    lines = (Path(variables["SPARK_CONF_DIR"]) / "spark-defaults.conf").read_text().splitlines()
    conf = dict(line.split(" ", 1) for line in lines)
    assert conf["spark.master"] == "yarn"
    assert conf["spark.yarn.appMasterEnv.PYTHONPATH"] == "apbatch-program:apbatch-libraries"
    assert conf["spark.yarn.appMasterEnv.APBATCH_CONFIG"] == Path(conf["spark.yarn.dist.files"]).name
    assert yaml.safe_load(Path(variables["APBATCH_CONFIG"]).read_text())["store"] == "hdfs://nn:8020/data"


def test_the_line_that_tells_is_the_cause_and_not_the_words_of_py4j() -> None:
    start = "An error occurred while calling None.org.apache.spark.api.java.JavaSparkContext.\n"
    trace = f"{start}: org.apache.spark.SparkException: Application application_1 failed 2 times\n\tat org.apache.x\n"
    assert first_line(Exception(trace)) == "org.apache.spark.SparkException: Application application_1 failed 2 times"
    assert first_line(Exception(f"{trace}Caused by: java.net.ConnectException: refused\n\tat x")).endswith("refused")
