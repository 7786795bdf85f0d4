"""What a gateway's followers of feeds did, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from apbatch.ingest.remote.feed import Follower


class Followers(Collector):
    """What followers did, for Prometheus."""

    def __init__(self, followers: Iterable[Follower]) -> None:
        self._followers = tuple(followers)

    def collect(self) -> Iterable[Metric]:
        """Yield what they did until now."""
        changes = CounterMetricFamily("apbatch_feed_changes", "Changes taken over from an agent.", labels=["site"])
        failures = CounterMetricFamily("apbatch_feed_failures", "Looks at a feed that failed.", labels=["site"])
        last = GaugeMetricFamily("apbatch_feed_success_time_seconds", "Of the last good look.", labels=["site"])
        for one in self._followers:
            changes.add_metric([one.site], one.changes)
            failures.add_metric([one.site], one.failures)
            last.add_metric([one.site], one.last_success)
        return changes, failures, last
