"""Writes the page that Prometheus reads, from a catalogue and what somebody reads off.

Each page has a registry of its own: prometheus_client's global one holds figures of the interpreter that
nobody asked for here, and belongs to the program that embeds us.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector
from twisted.copyright import version as twisted_version

from seance import __version__
from seance.metrics.catalogue import Kind, Metric
from seance.metrics.counting import Histogram

__all__ = ["CONTENT_TYPE", "Exposition", "Reading", "build_labels"]

Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

Reading = Mapping[str, "float | Histogram | Mapping[tuple[str, ...], float]"]
"""By name: a number, a histogram, or numbers by the values of the labels. What is not there has no series."""


class Exposition:
    """The page of one process.

    Args:
        catalogue: What may be on it.
        read: Returns the figures; called for each page.
    """

    def __init__(self, catalogue: Sequence[Metric], read: Callable[[], Reading]) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Reader(catalogue, read))
        ProcessCollector(registry=self._registry)

    def page(self) -> bytes:
        """Return it as it is now, to be sent as ``CONTENT_TYPE``."""
        return generate_latest(self._registry)


class _Reader(Collector):
    def __init__(self, catalogue: Sequence[Metric], read: Callable[[], Reading]) -> None:
        self._catalogue = {metric.name: metric for metric in catalogue}
        self._read = read

    def collect(self) -> Iterator[Family]:
        for name, value in self._read().items():
            yield _family(self._catalogue[name], value)


def _family(metric: Metric, value: float | Histogram | Mapping[tuple[str, ...], float]) -> Family:
    name, meaning, labels = metric.name, metric.meaning, metric.labels
    if isinstance(value, Histogram):
        histogram = HistogramMetricFamily(name, meaning)
        histogram.add_metric([], value.cumulative(), value.sum_seconds)
        return histogram
    family: CounterMetricFamily | GaugeMetricFamily
    if metric.kind is Kind.COUNTER:
        family = CounterMetricFamily(name.removesuffix("_total"), meaning, labels=labels)
    else:
        family = GaugeMetricFamily(name, meaning, labels=labels)
    for words, number in value.items() if isinstance(value, Mapping) else [((), value)]:
        family.add_metric(words, number)
    return family


def build_labels() -> dict[tuple[str, ...], float]:
    """Return the one series of ``seance_build_info``."""
    return {(__version__, platform.python_version(), twisted_version): 1.0}
