"""The web page: what its first view asks for, and in Chromium how long it and a search take to show."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urljoin

import urllib3

from apbatch.bench.case import Case, Operation
from apbatch.bench.cases.api.calls import FIRST, search_of
from apbatch.bench.cases.api.service import ServiceProcess
from apbatch.bench.runner import Group
from apbatch.bench.suite import Setting
from apbatch.errors import ServerError, VerificationError
from apbatch.index.files import FileRecord

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM, FOLLOWED = "Chromium", "links followed"
#: What the script of the first view asks for besides what the files name.
_FIRST_VIEW = ("/", "/static/browse.js", "/api/v1", "/api/v1/entries?limit=500")
_NAMED = re.compile(r"""(?:^import\b[^"';]*|<(?:link|script)\b[^>]*(?:href|src)=)["']([^"']+)["']""", re.MULTILINE)
_ROWS = "main table tbody tr"
_PATIENCE_MS = 600_000.0
_SIZES = """() => [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
    .map(one => one.transferSize)"""
#: Whether the result of a search is there: its first path, and how many rows.
_SHOWN = """([path, number]) => {
    const rows = document.querySelectorAll("main [aria-label=Result] tbody tr");
    return rows.length === number && rows[0].textContent.includes(path);
}"""


def page_groups(
    setting: Setting, records: Sequence[FileRecord], service: ServiceProcess, services: Mapping[str, ServiceProcess]
) -> Iterator[Group]:
    """Yield the groups of the page; without Chromium only what its first view asks for.

    Parameters
    ----------
    setting : Setting
    records : sequence of FileRecord
        What the catalogues hold.
    service : ServiceProcess
        Of the first view.
    services : Mapping of str to ServiceProcess
        By back-end, for the search.
    """
    browser = _chromium(setting)
    weight = Operation(
        "api",
        "bytes of the first view",
        "What goes over the wire, 10³ bytes, until the page shows the root of the "
        f"merged tree, with nothing in the browser's cache. “{FOLLOWED}”: the bodies alone. The aim is at most 300 kB.",
        "kB",
        1.0,
    )
    number = Operation(
        "api",
        "requests of the first view",
        "Requests until the page shows the root of the merged tree.",
        "requests",
        1.0,
    )
    for operation in (weight, number):
        by_weight = operation is weight
        cases: list[Case] = [_Followed(operation, service, by_weight)]
        if browser is not None:
            cases.append(_FirstView(operation, browser, service, _kilobytes if by_weight else len))
        yield Group(operation, cases)
    if browser is None:
        return
    view = Operation(
        "api",
        "first view of the page",
        "From the address to the root of the merged tree, with nothing in the "
        "browser's cache; the browser runs already. The aim is at most 1,000 ms.",
        "ms",
        1.0,
    )
    yield Group(view, [_FirstView(view, browser, service)])
    query, paths = search_of(records)
    search = Operation(
        "api",
        "search in the page",
        f"From the key to the first {FIRST} rows on the screen, of {len(paths)} of "
        f"{len(records)} files that match; the page asks for their count and their histogram at the same time. The "
        "aim is at most 300 ms with 1 % of 1,000,000.",
        "ms",
        1.0,
    )
    yield Group(search, [_Search(search, peer, browser, one, query, paths) for peer, one in services.items()])


def _chromium(setting: Setting) -> Browser | None:
    """Start Chromium for the rest of the run; None, with the reason in the report, where there is none."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None or importlib.util.find_spec("playwright") is None:
        missing = "Chromium (apt-get install chromium)" if program is None else "playwright (pip install playwright)"
        setting.left_out[CHROMIUM] = f"{missing} is missing"
        return None
    from playwright.sync_api import Error, sync_playwright

    # Root has no sandbox; nothing but this machine is asked.
    arguments = ["--disable-gpu", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    try:
        playwright = setting.at_end.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=program, args=arguments, timeout=_PATIENCE_MS)
    except Error as error:
        setting.left_out[CHROMIUM] = str(error).strip().splitlines()[0][:300]
        return None
    setting.at_end.callback(browser.close)
    return browser


def _kilobytes(sizes: Sequence[float]) -> float:
    return sum(sizes) / 1000.0


class _Followed(Case):
    """Ask for what the page names, as far as its first view needs it; proof: each is there, and none elsewhere."""

    def __init__(self, operation: Operation, service: ServiceProcess, by_weight: bool) -> None:
        super().__init__(operation, FOLLOWED)
        self._service, self._by_weight = service, by_weight
        self._sizes: dict[str, int] = {}

    def run(self) -> None:
        self._sizes = {}
        waiting = [urljoin(self._service.url, path) for path in _FIRST_VIEW]
        with urllib3.PoolManager() as pool:
            while waiting:
                address = waiting.pop()
                if address in self._sizes:
                    continue
                answer = pool.request("GET", address)
                if answer.status != 200 or not address.startswith(self._service.url):
                    raise ServerError(f"status {answer.status}", where=address)
                self._sizes[address] = len(answer.data)
                if not address.startswith(f"{self._service.url}/api/"):
                    waiting += [urljoin(address, name) for name in _NAMED.findall(answer.data.decode())]

    def figure(self, seconds: float) -> float:
        return _kilobytes(list(self._sizes.values())) if self._by_weight else float(len(self._sizes))

    def check(self) -> None:
        if len(self._sizes) <= len(_FIRST_VIEW):
            raise VerificationError("the page names no files")


class _FirstView(Case):
    """Open the page in a browser that has nothing of it; proof: a row of the root for each experiment."""

    def __init__(
        self,
        operation: Operation,
        browser: Browser,
        service: ServiceProcess,
        of_sizes: Callable[[Sequence[float]], float] | None = None,
    ) -> None:
        super().__init__(operation, CHROMIUM)
        self._browser, self._service, self._of_sizes = browser, service, of_sizes
        self._sizes: list[float] = []
        self._rows = 0

    def prepare(self) -> None:
        self._context = self._browser.new_context(base_url=self._service.url)
        self._context.set_default_timeout(_PATIENCE_MS)
        self._page = self._context.new_page()

    def run(self) -> None:
        self._page.goto("/", wait_until="commit")
        self._page.wait_for_selector(_ROWS)

    def figure(self, seconds: float) -> float:
        return super().figure(seconds) if self._of_sizes is None else float(self._of_sizes(self._sizes))

    def check(self) -> None:
        rows = self._page.locator(_ROWS).count()
        if self._of_sizes is not None:
            self._page.wait_for_load_state("networkidle")
            self._sizes = self._page.evaluate(_SIZES)
        self._context.close()
        if rows < 1:
            raise VerificationError("the page shows no folder")


class _Search(Case):
    """Search in a page that is open; proof: the first path, and as many rows as there are to be."""

    def __init__(
        self,
        operation: Operation,
        peer: str,
        browser: Browser,
        service: ServiceProcess,
        query: str,
        paths: Sequence[str],
    ) -> None:
        super().__init__(operation, f"{CHROMIUM}, {peer}")
        self._browser, self._service, self._query, self._paths = browser, service, query, paths
        self._page: Page | None = None

    def set_up(self) -> None:
        context = self._browser.new_context(base_url=self._service.url)
        context.set_default_timeout(_PATIENCE_MS)
        self._page = context.new_page()

    def prepare(self) -> None:
        assert self._page is not None
        self._page.goto("/search?q=events%20%3C%200")  # none: the page is there, and its rows are not
        self._page.fill("#query", self._query)
        self._page.wait_for_load_state("networkidle")

    def run(self) -> None:
        assert self._page is not None
        self._page.press("#query", "Enter")
        self._page.wait_for_function(_SHOWN, arg=[self._paths[0], min(FIRST, len(self._paths))])

    def check(self) -> None:
        """The wait is for the right rows."""

    def tear_down(self) -> None:
        if self._page is not None:
            self._page.context.close()
