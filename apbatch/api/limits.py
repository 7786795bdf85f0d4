"""How often one client may ask, and how many may follow the feed at once."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable

from apbatch.errors import TooManyRequestsError

#: Clients that are remembered; the one that was silent longest is forgotten, which gives it a full bucket.
_CLIENTS = 10_000


#: What is not there is told at multiples of so many seconds: the time must not tell that something is hidden instead.
STEP_S = 0.05


def until_step_s(start: float) -> float:
    """Return how long to wait for the next step after `start`, a reading of `time.perf_counter`."""
    return STEP_S - (time.perf_counter() - start) % STEP_S


class RateLimit:
    """A bucket of requests for each client, which fills up again.

    Parameters
    ----------
    per_second : float
        Requests in the long run; 0 for no limit.
    burst : int
        Requests at once.
    clock : callable
        Seconds, monotonic.
    """

    def __init__(self, per_second: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._clock = per_second, burst, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str) -> None:
        """Count a request.

        Raises
        ------
        TooManyRequestsError
            If the client has to wait; the remedy says for how long.
        """
        if not self._rate:
            return
        now = self._clock()
        left, before = self._buckets.pop(key, (float(self._burst), now))
        left = min(self._burst, left + (now - before) * self._rate)
        allowed = left >= 1
        self._buckets[key] = (left - 1 if allowed else left, now)
        while len(self._buckets) > _CLIENTS:
            self._buckets.popitem(last=False)
        if not allowed:
            wait = max(1, round((1 - left) / self._rate + 0.5))
            raise TooManyRequestsError("too many requests", remedy=f"wait {wait} s")

    def wait_s(self) -> int:
        """Return after how many seconds one more request is possible for whoever was refused."""
        return max(1, round(1 / self._rate + 0.5)) if self._rate else 1


class Places:
    """A number of places for what lasts long."""

    def __init__(self, number: int) -> None:
        self._free = number

    def check(self) -> None:
        """Make sure that there is a place.

        Raises
        ------
        TooManyRequestsError
            If there is none.
        """
        if self._free <= 0:
            raise TooManyRequestsError("too many clients follow the feed", remedy="try again later, or ask by pages")

    def __enter__(self) -> None:
        self._free -= 1

    def __exit__(self, *exception: object) -> None:
        self._free += 1


class FeedPlaces:
    """How far the feed was read for somebody who may not see what is there; those that were asked for last are kept."""

    def __init__(self) -> None:
        self._places: OrderedDict[Hashable, int] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, since: int) -> int:
        """Return the revision up to which nothing is seen; `since` if that is not known."""
        with self._lock:
            return self._places.get(key, since)

    def put(self, key: Hashable, revision: int) -> None:
        """Keep a revision."""
        with self._lock:
            self._places[key] = revision
            self._places.move_to_end(key)
            if len(self._places) > _CLIENTS:
                self._places.popitem(last=False)
