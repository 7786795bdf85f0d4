"""The benchmark's machinery: fairness, honesty, what survives a kill. No server takes part."""

from __future__ import annotations

import json
import shutil
import statistics
import time
from collections import Counter
from dataclasses import replace
from datetime import date
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest
from scipy.stats import binom

from apbatch.bench.campaign import latest_folder, run
from apbatch.bench.case import Case, Operation
from apbatch.bench.cases.catalogue.records import synthetic_records
from apbatch.bench.cases.peers import CASSANDRA, POSTGRES, catalogue_urls
from apbatch.bench.cases.storage import storage_groups
from apbatch.bench.report import rows, write_report
from apbatch.bench.runner import Group, measure, run_group
from apbatch.bench.samples import Sample, SampleFile, SampleRun, read_run, write_about
from apbatch.bench.sizes import BUILT_IN, Size, size_named
from apbatch.bench.statistics import COVERED, Ratio, advice, ratio_of, results, three_digits
from apbatch.bench.suite import Setting
from apbatch.bench.suites import SUITES
from apbatch.camera.hillas import clean_and_parametrise
from apbatch.errors import NotFoundError, ServerError, UsageError, VerificationError
from apbatch.storage.backends import open_store

RATE = Operation("storage", "write", "Writes.", "MB/s", 10.0, "disk")
TIME = Operation("index", "look up", "Looks.", "ms", 4.0)
ABOUT = {
    "started": "now", "finished": "later", "suites": ["index"], "size": {"name": "tiny", "repeats": 5}, "left out": {},
    "machine": {"cores": 2}, "software": {},
}  # fmt: skip
TINY = Size(repeats=5, large_mb=1, small_files=3, small_kb=1, records=400, lookups=4)


class Noted(Case):
    """Writes down each of its calls."""

    def __init__(self, peer: str, calls: list[str], fail_at: int = -1) -> None:
        super().__init__(RATE, peer, bytes=7)
        self.calls, self.fail_at, self.runs = calls, fail_at, 0

    def prepare(self) -> None:
        self.calls.append(f"prepare {self.peer}")

    def run(self) -> None:
        self.calls.append(self.peer)
        self.runs += 1

    def check(self) -> None:
        if self.runs == self.fail_at:
            raise VerificationError("nothing was written")

    def tear_down(self) -> None:
        self.calls.append(f"down {self.peer}")


def run_noted(fail_at: int = -1, repeats: int = 2) -> tuple[list[str], list[Sample]]:
    calls: list[str] = []
    samples: list[Sample] = []
    cases = [Noted("A", calls), Noted("B", calls, fail_at), Noted("C", calls)]
    run_group(Group(RATE, cases), repeats, samples.append)
    return calls, samples


def test_peers_take_turns_in_every_round() -> None:
    calls, _ = run_noted()
    turns = [call for call in calls if len(call) == 1]
    assert [sorted(turns[start : start + 3]) for start in (0, 3, 6)] == [["A", "B", "C"]] * 3


def test_no_peer_is_always_the_first() -> None:
    calls, _ = run_noted()
    turns = [call for call in calls if len(call) == 1]
    assert turns[0::3] == ["A", "B", "C"]


def test_the_warm_up_round_is_kept_apart() -> None:
    _, samples = run_noted()
    assert [sample.round for sample in samples if sample.peer == "A"] == [0, 1, 2]
    run = SampleRun({}, [RATE], samples)
    assert {sample.round for sample in run.of(RATE)} == {1, 2}


def test_a_case_that_did_not_do_its_work_is_out_and_said_so() -> None:
    _, samples = run_noted(fail_at=2)
    of_b = [sample for sample in samples if sample.peer == "B"]
    assert [sample.error for sample in of_b] == [None, "did not do the work: nothing was written"]
    assert of_b[-1].figure is None


def test_the_others_go_on_when_a_case_fails() -> None:
    _, samples = run_noted(fail_at=2, repeats=4)
    assert sum(sample.peer == "A" for sample in samples) == 5


def test_every_case_is_torn_down_also_after_a_failure() -> None:
    calls, _ = run_noted(fail_at=1)
    assert [call for call in calls if call.startswith("down")] == ["down A", "down B", "down C"]


def test_a_rate_is_work_over_time() -> None:
    assert RATE.figure(2.0) == 5.0


def test_a_time_is_that_of_one_call() -> None:
    assert TIME.figure(2.0) == 500.0


def sample(operation: Operation, peer: str, figure: float, number: int = 1) -> Sample:
    return Sample(
        operation.suite, operation.name, peer, number, "2026-01-01T00:00:00+00:00", 1.0, 0.5, 0.25, 1, 0.3, figure
    )


def samples_of(operation: Operation, **peers: list[float]) -> list[Sample]:
    return [
        sample(operation, peer, figure, number)
        for peer, figures in peers.items()
        for number, figure in enumerate(figures, start=1)
    ]


def test_median_and_spread_are_those_of_the_samples() -> None:
    (result,) = results(SampleRun({}, [RATE], samples_of(RATE, A=[5, 1, 9, 2, 7])))
    figure = result.figures[0]
    assert (figure.low, figure.median, figure.high) == (1, 5, 9)
    assert figure.cpu_share == 0.75


def test_the_ratio_is_against_the_physical_limit() -> None:
    (result,) = results(SampleRun({}, [RATE], samples_of(RATE, A=[50.0] * 5, disk=[200.0] * 5)))
    assert {figure.peer: figure.ratio.median for figure in result.figures if figure.ratio} == {"disk": 1.0, "A": 0.25}


def test_a_ratio_is_taken_within_rounds() -> None:
    """A machine that becomes half as fast for some rounds, for all of them: ratios of medians would see it."""
    disk, A = [200.0, 190.0, 100.0, 90.0, 210.0], [100.0, 95.0, 50.0, 45.0, 63.0]
    (result,) = results(SampleRun({}, [RATE], samples_of(RATE, A=A, disk=disk)))
    (ratio,) = [figure.ratio for figure in result.figures if figure.peer == "A"]
    assert ratio == Ratio(0.5, 0.3, 0.5, 5)
    assert ratio.median != statistics.median(A) / statistics.median(disk)


def test_peers_that_share_no_round_have_no_ratio() -> None:
    assert ratio_of({1: 3.0, 2: 4.0}, {3: 1.0, 1: 0.0}) is None


@pytest.mark.parametrize("rounds", [1, 4, 5, 7, 8, 9, 11, 15, 30])
def test_the_interval_of_a_ratio_covers_the_median_as_stated(rounds: int) -> None:
    found = ratio_of({number: float(number) for number in range(rounds)}, dict.fromkeys(range(rounds), 1.0))
    assert found is not None
    assert found.rounds == rounds

    def chance(outside: int) -> float:  # scipy's binomial distribution is the oracle
        return float(1 - 2 * binom.cdf(outside, rounds, 0.5))

    outside = int(found.low)
    assert found.high == rounds - 1 - outside
    assert outside == 0 or chance(outside) >= COVERED
    assert chance(outside + 1) < COVERED


def test_the_gain_is_against_the_peer_to_be_beaten() -> None:
    operation = replace(RATE, baseline="old")
    (result,) = results(SampleRun({}, [operation], samples_of(RATE, A=[50.0] * 5, old=[2.0] * 5, disk=[200.0] * 5)))
    gains = {figure.peer: figure.gain.median for figure in result.figures if figure.gain}
    assert gains == {"disk": 100.0, "A": 25.0, "old": 1.0}


def test_the_gain_of_a_shorter_time_is_above_1() -> None:
    operation = replace(TIME, baseline="old")
    (result,) = results(SampleRun({}, [operation], samples_of(TIME, A=[2.0] * 5, old=[9.0] * 5)))
    assert {figure.peer: figure.gain.median for figure in result.figures if figure.gain} == {"A": 4.5, "old": 1.0}


def test_work_judged_by_cpu_time_is_not_charged_for_waiting() -> None:
    class Sleeps(Case):
        def run(self) -> None:
            time.sleep(0.2)

        def check(self) -> None:
            pass

    wall, cpu = (measure(Sleeps(replace(RATE, clock=clock), "A"), 1) for clock in ("wall", "cpu"))
    assert wall.figure == pytest.approx(RATE.count / wall.seconds)
    assert cpu.figure is not None and wall.figure is not None and cpu.figure > 5 * wall.figure


def test_an_order_is_stated_when_all_samples_agree() -> None:
    (result,) = results(SampleRun({}, [RATE], samples_of(RATE, A=[10, 11, 12, 13, 14], B=[20, 22, 24, 26, 28])))
    assert result.statement == "B is 2.00 times ahead of A."


def test_the_statement_has_the_ratio_that_the_table_has() -> None:
    A, B = [10.0, 11, 12, 13, 14], [60.0, 55, 36, 39, 42]
    (result,) = results(SampleRun({}, [replace(RATE, baseline="A")], samples_of(RATE, A=A, B=B)))
    assert result.figures[0].gain is not None and result.figures[0].gain.median == 3.0
    assert result.statement == "B is 3.00 times ahead of A."


def test_without_a_limit_the_ratio_to_the_baseline_is_enough(tmp_path: Path) -> None:
    for operation, columns in (
        (replace(TIME, baseline="old"), ["times"]),
        (TIME, ["ratio to"]),
        (replace(TIME, baseline="old", reference="disk"), ["ratio to", "times"]),
    ):
        folder = tmp_path / "-".join(columns)
        kept(folder, samples_of(TIME, old=[3.0] * 5, new=[2.0] * 5, disk=[1.0] * 5), operation)
        assert [name for name in ("ratio to", "times") if any(row[name] for row in rows(folder))] == columns
        page = write_report(folder)[0].read_text()
        assert [name for name in ("ratio to", "times") if f"<th>{name}" in page] == columns


def test_no_order_is_stated_when_samples_overlap() -> None:
    (result,) = results(SampleRun({}, [RATE], samples_of(RATE, A=[10, 11, 12, 13, 20.5], B=[20, 22, 24, 26, 28])))
    assert result.statement == "B and A are not told apart."


def test_levels_are_stated_from_the_best_to_the_worst() -> None:
    samples = samples_of(RATE, A=[90.0] * 5, B=[30.0, 31, 32, 33, 34], C=[29.0, 31, 32, 30, 29], D=[4.0] * 5)
    (result,) = results(SampleRun({}, [RATE], samples))
    assert result.statement == ("A is 2.81 times ahead of B; B and C are not told apart and 8.00 times ahead of D.")


def test_less_time_is_better() -> None:
    (result,) = results(SampleRun({}, [TIME], samples_of(TIME, slow=[9.0] * 5, quick=[3.0] * 5)))
    assert result.statement == "quick is 3.00 times ahead of slow."


def test_no_order_is_stated_from_few_samples() -> None:
    (result,) = results(SampleRun({}, [RATE], samples_of(RATE, A=[1, 1], B=[9, 9])))
    assert "no order is stated" in result.statement


def test_the_physical_limit_is_no_peer() -> None:
    (result,) = results(SampleRun({}, [RATE], samples_of(RATE, A=[1.0] * 5, disk=[9.0] * 5)))
    assert result.statement == "No order is stated: one peer was measured, beside the limit (disk)."


def test_advice_is_given_only_if_no_operation_disagrees() -> None:
    other = replace(RATE, name="read")
    agreeing = samples_of(RATE, A=[9.0] * 5, B=[1.0] * 5) + samples_of(other, A=[9.0] * 5, B=[1.0] * 5)
    split = samples_of(RATE, A=[9.0] * 5, B=[1.0] * 5) + samples_of(other, A=[1.0] * 5, B=[9.0] * 5)
    assert "take A" in advice(results(SampleRun({}, [RATE, other], agreeing)), [("A", "B")])[0]
    assert "take" not in advice(results(SampleRun({}, [RATE, other], split)), [("A", "B")])[0]


def test_no_advice_is_drawn_from_the_smallest_size(finished: Path, tmp_path: Path) -> None:
    found = read_run(finished)
    samples = samples_of(RATE, **{"local store": [9.0] * 5, "HDFS (hdfs-native)": [1.0] * 5})
    pages = {}
    for size in ("smoke", "small"):
        folder = tmp_path / size
        kept(folder, samples)
        write_about(folder, {**found.about, "size": {**found.about["size"], "name": size}}, [RATE])
        pages[size] = write_report(folder)[0].read_text()
    assert "take local store" in pages["small"]
    assert "take local store" not in pages["smoke"]


def test_a_failed_round_does_not_count() -> None:
    broken = replace(sample(RATE, "A", 0.0, 6), figure=None, error="server died")
    (result,) = results(SampleRun({}, [RATE], [*samples_of(RATE, A=[5.0] * 5), broken]))
    assert len(result.figures[0].values) == 5
    assert result.failures == {"A": "server died"}


def kept(folder: Path, samples: list[Sample], operation: Operation = RATE) -> None:
    write_about(folder, ABOUT, [operation])
    file = SampleFile(folder)
    for one in samples:
        file.add(one)
    file.close()


def test_samples_come_back_as_they_were_kept(tmp_path: Path) -> None:
    samples = samples_of(RATE, A=[1.5, 2.5])
    kept(tmp_path, samples)
    assert read_run(tmp_path).samples == samples


def test_a_line_cut_off_by_a_kill_loses_only_itself(tmp_path: Path) -> None:
    kept(tmp_path, samples_of(RATE, A=[1.5, 2.5]))
    file = tmp_path / "samples.jsonl"
    file.write_bytes(file.read_bytes()[:-20])
    assert [one.figure for one in read_run(tmp_path).samples] == [1.5]


def test_a_damaged_line_is_told_with_its_number(tmp_path: Path) -> None:
    kept(tmp_path, samples_of(RATE, A=[1.5, 2.5]))
    file = tmp_path / "samples.jsonl"
    file.write_text(file.read_text().replace("{", "[", 1))
    with pytest.raises(UsageError, match=r"samples\.jsonl:1"):
        read_run(tmp_path)


def test_a_folder_without_a_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        read_run(tmp_path)


class NoServers:
    """Nothing is up."""

    def endpoint(self, server: str, name: str) -> str:
        raise ServerError(f"the server '{server}' is not up")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run of the storage suite, on local disk alone."""
    folder = tmp_path_factory.mktemp("bench") / "run"
    run(["storage"], "tiny", TINY, NoServers(), folder)
    write_report(folder)
    return folder


def test_a_run_measures_every_operation_of_every_peer(finished: Path) -> None:
    samples = read_run(finished).samples
    assert {sample.error for sample in samples} == {None}
    assert len(samples) == (5 + 2) * 2 * 6  # operations (mirrors into a local folder), peers, rounds with warm-up


def test_servers_that_are_not_up_are_left_out_with_the_reason(finished: Path) -> None:
    left_out = read_run(finished).about["left out"]
    assert set(left_out) == {"HDFS (hdfs-native)", "HDFS (WebHDFS)", "AFS"}
    assert "not up" in left_out["AFS"]


def test_a_run_removes_its_files(finished: Path) -> None:
    assert {file.name for file in finished.iterdir()} == {
        "run.json", "samples.jsonl", "report.html", "report.json",
    }  # fmt: skip


def test_the_page_names_its_suites_and_their_limits_only(finished: Path) -> None:
    text = (finished / "report.html").read_text()
    assert "<h2>Storage</h2>" in text and "<h2>Index</h2>" not in text
    for limit in SUITES["storage"].limits:
        assert limit in text


def test_a_run_records_machine_and_versions(finished: Path) -> None:
    about = read_run(finished).about
    assert about["machine"]["cores"] >= 1
    assert about["software"]["python"]


def test_a_folder_is_not_used_twice(finished: Path) -> None:
    with pytest.raises(UsageError, match="holds a run already"):
        run(["storage"], "tiny", TINY, NoServers(), finished)


def test_a_run_that_was_broken_off_goes_on_where_it_was(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    lines = (finished / "samples.jsonl").read_text().splitlines(keepends=True)
    (folder / "samples.jsonl").write_text("".join(lines[:17]) + lines[17][:40])
    about = json.loads((finished / "run.json").read_text())
    about["about"]["finished"] = None
    (folder / "run.json").write_text(json.dumps(about))
    with pytest.raises(UsageError, match="holds a run already"):
        run(["storage"], "tiny", TINY.model_copy(update={"repeats": 7}), NoServers(), folder)
    run(["storage"], "tiny", TINY, NoServers(), folder)
    again = (folder / "samples.jsonl").read_text().splitlines(keepends=True)
    assert again[:17] == lines[:17], "what was kept is not measured again"
    measured = [(sample.operation, sample.peer, sample.round) for sample in read_run(folder).samples]
    assert len(measured) == len(set(measured)) == len(lines)
    assert read_run(folder).about["finished"] and not (folder / "scratch").exists()


def test_each_peer_can_have_a_baseline_of_its_own() -> None:
    operation = replace(TIME, baselines=(("A", "bare A"), ("B", "bare B")))
    samples = samples_of(operation, **{"A": [2.0] * 5, "bare A": [1.0] * 5, "B": [9.0] * 5, "bare B": [3.0] * 5})
    (result,) = results(SampleRun({}, [operation], samples))
    gains = {figure.peer: figure.gain and figure.gain.median for figure in result.figures}
    assert gains == {"A": pytest.approx(0.5), "bare A": None, "B": pytest.approx(1 / 3), "bare B": None}


def test_an_unknown_suite_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as raised:
        run(["storge"], "tiny", TINY, NoServers(), tmp_path)
    assert raised.value.nearest == "storage"


def test_the_latest_run_is_found(home: Path) -> None:
    for name in ("20260101T000000Z", "20270101T000000Z"):
        kept(home / "bench" / name, [])
    assert latest_folder().name == "20270101T000000Z"


def test_the_json_report_holds_every_sample(finished: Path) -> None:
    content = json.loads((finished / "report.json").read_text())
    assert len(content["samples"]) == len((finished / "samples.jsonl").read_text().splitlines())


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [
            str(value) for name, value in attrs if name in ("src", "href") and not str(value).startswith("#")
        ]


def test_the_page_has_a_plot_for_each_operation_and_loads_nothing(finished: Path) -> None:
    page = _Tags()
    page.feed((finished / "report.html").read_text())
    assert page.tags.count("svg") == 7
    assert page.links == ["report.json"]


def test_the_page_shows_the_medians_of_the_samples(finished: Path) -> None:
    text = (finished / "report.html").read_text()
    for result in results(read_run(finished)):
        for figure in result.figures:
            assert f"<b>{three_digits(figure.median)}</b>" in text


def test_the_page_says_what_it_can_not_tell(finished: Path) -> None:
    assert "one machine and one disk" in (finished / "report.html").read_text()


def test_a_reason_with_markup_can_not_break_the_page(finished: Path, tmp_path: Path) -> None:
    found = read_run(finished)
    about = {**found.about, "left out": {"AFS": "<script>alert(1)</script>"}, "finished": None}
    write_about(tmp_path, about, found.operations)
    page, _ = write_report(tmp_path)
    assert "<script>" not in page.read_text()


def test_a_run_that_was_broken_off_has_a_report_that_says_so(finished: Path, tmp_path: Path) -> None:
    found = read_run(finished)
    write_about(tmp_path, {**found.about, "finished": None}, found.operations[:2])
    (tmp_path / "samples.jsonl").write_text("".join((finished / "samples.jsonl").read_text().splitlines(True)[:7]))
    page, _ = write_report(tmp_path)
    assert "did not come to its end" in page.read_text()


def test_a_write_that_writes_nothing_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(f"file://{tmp_path}/store")
    monkeypatch.setattr("apbatch.bench.cases.storage._StorePlace.write", lambda self, name, content: None)
    samples: list[Sample] = []
    run_group(next(iter(storage_groups(TINY, {"store": store}, tmp_path))), 1, samples.append)
    assert [bool(sample.error) for sample in samples if sample.peer == "store"] == [True]


def test_the_same_seed_gives_the_same_records() -> None:
    assert list(synthetic_records(50)) == list(synthetic_records(50)) != list(synthetic_records(50, seed=1))


def test_records_have_paths_of_their_own() -> None:
    records = synthetic_records(500)
    assert len({record.path for record in records}) == 500
    assert records[0].night == date(2017, 10, 1)
    assert records[-1] == list(records)[-1] and records[130:140] == list(records)[130:140]
    nights = Counter(record.path.rpartition("/")[0] for record in records)
    assert set(nights.values()) == {125} and records.night_of(130) == range(125, 250)


@pytest.mark.parametrize(
    ("value", "text"), [(1234.4, "1\u2009234"), (567.8, "568"), (56.78, "56.8"), (3.456, "3.46"), (0.01234, "0.0123")]
)
def test_figures_are_shown_with_three_digits(value: float, text: str) -> None:
    assert three_digits(value) == text


def test_an_unknown_size_names_the_nearest() -> None:
    with pytest.raises(UsageError) as raised:
        size_named("smok")
    assert raised.value.nearest == "smoke"


def test_the_file_of_sizes_adds_to_the_built_in_ones() -> None:
    file = Path(__file__).parents[3] / "conf" / "bench.yaml"
    assert size_named("night", file).repeats == 11
    assert size_named("smoke", file) == BUILT_IN["smoke"]


def test_a_wrong_key_in_the_file_of_sizes_is_told_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "sizes.yaml"
    file.write_text("sizes:\n  x:\n    repeat: 3\n")
    with pytest.raises(UsageError, match=r"sizes\.yaml:3.*did you mean"):
        size_named("x", file)


def test_the_kernels_are_measured_on_showers_and_checked_against_ctapipe(tmp_path: Path) -> None:
    left_out = run(["kernels"], "tiny", TINY.model_copy(update={"images": 120, "repeats": 1}), NoServers(), tmp_path)
    samples = read_run(tmp_path).samples
    assert not left_out and {sample.error for sample in samples} == {None}
    assert {sample.peer for sample in samples} == {
        "apbatch",
        "ctapipe",
        "numpy.sum",
        "numpy",
        "copy",
        "without and with cleaning",
    }
    gains = {figure.peer: figure.gain for result in results(read_run(tmp_path)) for figure in result.figures}
    assert None not in gains.values()


def test_a_kernel_that_cleans_otherwise_is_found_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def wrong(images, camera, cleaning, out=None):  # type: ignore[no-untyped-def]
        return clean_and_parametrise(images, camera, replace(cleaning, boundary=cleaning.boundary / 2), out=out)

    monkeypatch.setattr("apbatch.bench.cases.kernels.clean_and_parametrise", wrong)
    run(["kernels"], "tiny", TINY.model_copy(update={"images": 120, "repeats": 1}), NoServers(), tmp_path)
    errors = {sample.peer: sample.error for sample in read_run(tmp_path).samples if sample.error}
    assert set(errors) == {"apbatch"} and "did not do the work" in errors["apbatch"]


def test_a_new_run_finds_nothing_of_a_killed_one_in_the_same_folder(tmp_path: Path) -> None:
    def databases() -> list[str]:
        setting = Setting(TINY, SimpleNamespace(endpoint=lambda server, name: f"{server}://127.0.0.1:1"), tmp_path)
        urls = catalogue_urls(setting, "index")
        setting.at_end.pop_all()  # it was killed: nothing is dropped
        return [urls[POSTGRES], urls[CASSANDRA]]

    first = databases()
    assert first[0].rpartition("/")[2] == first[1].rpartition("/")[2]
    assert databases() == first  # the same run goes on
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    assert not set(databases()) & set(first)
