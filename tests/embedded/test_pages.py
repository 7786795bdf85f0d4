"""The web page in a real browser: what it shows, what it asks for, with a keyboard, on a phone, for screen readers."""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from apbatch.access.opening import Opening
from apbatch.index.events.parquet import ParquetEvents
from apbatch.index.sql.sqlite import SqliteCatalogue
from apbatch.ingest.events import load_events
from apbatch.ingest.scan import ingest
from apbatch.ingest.sites import add_site
from apbatch.sample.site import SITES
from tests.service import Running, serving
from tests.synthetic import look_at_run
from tests.waits import PATIENCE_S

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="NOT TESTED: no Chromium (apt-get install chromium)")
PATIENCE_MS = PATIENCE_S * 1000
#: The addresses of all views, and what shows that each is there.
VIEWS = {
    "/browse": "main table tbody tr",
    "/browse/taiga-mc/taiga-mc": "main table tbody tr",
    "/search?q=events%20%3E%200": "main table tbody tr",
    "/events": "main table tbody tr",
    "/nights": "main h1",
    "/reports": "main h2",
    "/about": "main table",
}


@pytest.fixture(scope="module")
def running(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The service over two sites of the sample, with their events."""
    home = tmp_path_factory.mktemp("pages")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("APBATCH_HOME", str(home))
        with (
            SqliteCatalogue(f"sqlite:///{home}/catalogue.sqlite") as catalogue,
            ParquetEvents(f"file://{home}/events") as events,
        ):
            for name in ("taiga-mc", "taiga-raw"):
                site, _ = add_site(sample / SITES / f"{name}.yaml")
                ingest(site, catalogue)
                load_events(site, catalogue, events)
            with serving(home, catalogue, events, files=Opening(), rules=None) as running:
                yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Root has no sandbox of its own; nothing but this machine is asked.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, running: Running) -> Iterator[Page]:
    """A page of the service; whatever it asks of another host, and every error of its scripts, fails the test."""
    context = browser.new_context(base_url=running.url)
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith(running.url) else faults.append(request.url))
    yield page
    context.close()
    assert faults == []


def size_of(page: Page) -> int:
    """Bytes of everything that the page has loaded, its document included."""
    total: int = page.evaluate(
        """() => [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
            .reduce((sum, one) => sum + one.transferSize, 0)"""
    )
    return total


def test_the_first_view_is_small(page: Page) -> None:
    page.goto("/")
    page.wait_for_selector("main table tbody tr")
    assert 1000 < size_of(page) < 300_000


def test_folders_lead_to_a_file_and_back(page: Page, running: Running) -> None:
    page.goto("/browse")
    for _ in range(9):
        first = page.locator("main td a").first
        name = first.inner_text()
        first.click()
        if not name.endswith("/"):
            break
        page.wait_for_function("name => document.querySelector('h1').textContent.endsWith(name)", arg=name.rstrip("/"))
    page.get_by_role("heading", name="Checksums").wait_for()
    path = page.evaluate("new URLSearchParams(location.search).get('path')")
    record = running.json(f"/api/v1/file?path={quote(path)}")["record"]
    assert record["checksum"] in page.locator("main").inner_text()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert Path(download.value.path()).stat().st_size == record["size"]
    page.go_back()
    page.wait_for_selector("main table tbody tr")


def test_a_search_completes_counts_and_is_a_link_that_can_be_shared(page: Page, running: Running) -> None:
    page.goto("/search")
    field = page.get_by_role("combobox", name="Query")
    field.press_sequentially("exp")
    page.locator("#choices li").first.wait_for()
    field.press("ArrowDown")
    field.press("Enter")  # takes the name of the attribute
    field.press_sequentially("= 'TAI")
    page.locator("#choices li").first.wait_for()
    field.press("ArrowDown")
    field.press("Enter")
    query = field.input_value().strip()
    assert query.startswith("experiment = 'TAIGA")
    files = running.json(f"/api/v1/files/count?q={quote(query)}")["count"]
    page.wait_for_function("text => document.getElementById('live').textContent === text", arg=f"{files} match")
    field.press("Enter")
    page.wait_for_function("n => document.querySelectorAll('main table tbody tr').length === n", arg=files)
    other = page.context.new_page()  # who gets the link sees the same
    other.goto(page.url)
    other.wait_for_function("n => document.querySelectorAll('main table tbody tr').length === n", arg=files)
    assert other.get_by_role("combobox", name="Query").input_value() == query


def test_a_misspelt_name_is_answered_with_the_right_one(page: Page) -> None:
    page.goto("/search?q=evnts%20%3E%200")
    page.get_by_role("alert").first.wait_for()
    page.get_by_role("link", name="events", exact=True).click()
    page.wait_for_selector("main table tbody tr")


def test_an_address_that_there_is_not_is_a_page_to_people_and_a_problem_to_programs(
    page: Page, running: Running
) -> None:
    for address in ("/jobs/x", "/constructor"):
        answer = page.goto(address)
        assert answer is not None and answer.status == 404
        page.get_by_role("heading", name="Not here").wait_for()
        page.get_by_role("link", name="Browse", exact=True).click()
        page.wait_for_selector("main table tbody tr")
        told = running.get(address)
        assert told.status == 404 and told.headers["content-type"] == "application/problem+json"


def test_an_event_is_shown_before_and_after_cleaning_and_on_the_grid(page: Page, running: Running) -> None:
    columns = ("experiment", "run", "event", "telescope")
    query = quote("experiment = 'TAIGA-MC'")
    (row, *_) = running.json(f"/api/v1/events?limit=1&q={query}&columns={','.join(columns)}")["items"]
    address = "&".join(f"{name}={quote(str(row[name]))}" for name in columns)
    shown = running.json(f"/api/v1/events/display?{address}")
    assert shown["image"] is not None, shown
    page.goto(f"/event?{address}")
    page.get_by_role("heading", name="Square grid").wait_for()
    pixels = len(shown["image"]["values"])
    first, second = (page.locator("section.card").nth(place) for place in (0, 1))
    assert first.locator("polygon").count() == second.locator("polygon").count() == pixels
    assert first.locator("polygon.off").count() == sum(value is None for value in shown["image"]["values"])
    assert pixels - second.locator("polygon.off").count() == len(shown["image"]["cleaned"]["mask"])
    assert first.locator("ellipse").count() == 1
    assert page.get_by_role("heading", name="Image parameters").count() == 1


def test_a_night_shows_the_quality_of_its_runs_and_leads_to_the_rest(page: Page, running: Running) -> None:
    row = running.json("/api/v1/files?columns=experiment,run,night&q=" + quote("night is not null limit 1"))["items"][0]
    page.goto(f"/nights?night={row['night']}")
    page.get_by_text("once a run was looked at").wait_for()
    look_at_run(running.service.home, row["experiment"], row["run"])
    page.reload()
    first = page.get_by_role("row", name=f"{row['experiment']} {row['run']}").first
    first.get_by_role("img", name="Event rate").wait_for()
    first.get_by_role("link", name="1 dead").click()
    page.get_by_role("heading", name=f"Run {row['run']}, {row['experiment']}").wait_for()
    shown = page.locator("main").inner_text()
    assert (
        "1 dead" in shown
        and "pedestal" in shown
        and page.get_by_role("region", name="Clusters of the camera").count() == 1
    )


def test_everything_is_reached_by_keyboard(page: Page) -> None:
    page.goto("/browse")
    page.wait_for_selector("main table tbody tr")
    seen = []
    for _ in range(14):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.textContent.trim()"))
    assert seen[0] == "To the content" and {"Browse", "Files", "Events", "Nights", "Reports"} <= set(seen)
    page.get_by_role("link", name="Nights").focus()
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Nights", level=1).wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(page: Page, scheme: Any) -> None:
    from axe_playwright_python.sync_playwright import Axe

    axe = Axe()
    page.emulate_media(color_scheme=scheme)
    serious = {}
    for address, sign in VIEWS.items():
        page.goto(address)
        page.wait_for_selector(sign)
        for fault in axe.run(page).response["violations"]:
            if fault["impact"] in ("serious", "critical"):
                serious[address, fault["id"]] = [node["html"][:200] for node in fault["nodes"][:3]]
    assert serious == {}


def test_a_phone_shows_every_view_without_scrolling_sideways(page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    wide = {}
    for address, sign in VIEWS.items():
        page.goto(address)
        page.wait_for_selector(sign)
        width = page.evaluate("document.documentElement.scrollWidth")
        if width > 360:
            wide[address] = width
    assert wide == {}


def test_a_running_job_shows_its_progress_until_it_rests(page: Page, running: Running) -> None:
    folder = running.service.home / "jobs" / "watched"
    (folder / "steps" / "one").mkdir(parents=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        page.goto("/reports")
        row = page.get_by_role("row", name="watched")
        row.get_by_text("running").wait_for()
        assert row.get_by_role("cell").nth(2).inner_text() == "0"
        page.get_by_role("link", name="watched").focus()
        (folder / "steps" / "one" / "1.json").write_text("{}")
        row.get_by_role("cell", name="1", exact=True).wait_for()
    row.get_by_text("at rest").wait_for()
    assert page.evaluate("document.activeElement.textContent") == "watched"


def test_a_job_shows_what_its_steps_made(page: Page, running: Running) -> None:
    steps = running.service.home / "jobs" / "two" / "steps" / "s"
    steps.mkdir(parents=True)
    for number, name in enumerate(("select", "clean")):
        record = {"step": name, "made": f"2026-01-0{number + 1}T00:00:00", "products": {name: f"file:///made/{name}"}}
        (steps / f"{name}-1.json").write_text(json.dumps(record))
    page.goto("/reports?job=two")
    page.get_by_role("heading", name="clean").wait_for()
    assert page.get_by_text("file:///made/select").count() == 1


def test_the_page_waits_for_a_server_that_is_being_restarted(page: Page) -> None:
    away = [503, 503]

    def answer(route: Any) -> None:
        if away:
            route.fulfill(status=away.pop(), headers={"Retry-After": "1"}, body="{}")
        else:
            route.continue_()

    page.route("**/api/v1/entries*", answer)
    page.goto("/browse")
    page.wait_for_selector("main table tbody tr")
    assert not away


def test_a_search_that_takes_long_says_so_and_shows_its_rows(page: Page) -> None:
    asked: list[Any] = []
    page.route("**/api/v1/files?*", lambda route: asked.append(route))
    page.goto("/search?q=events%20%3E%200")
    page.get_by_text("This search takes a while").wait_for()
    asked.pop().continue_()
    page.wait_for_selector("main [aria-label=Result] tbody tr")
    assert page.get_by_text("This search takes a while").count() == 0


def test_names_of_files_are_text_and_never_markup(page: Page) -> None:
    page.goto("/search?q=" + quote("path = '<img src=x onerror=alert(1)>'"))
    page.wait_for_selector("main .quiet")
    assert page.locator("main img").count() == 0
