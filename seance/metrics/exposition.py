"""The page that Prometheus reads: prometheus_client's counters and histograms, and values read for each page.

Each page has its own registry, because prometheus_client's global one belongs to the program that embeds us.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector
from twisted.copyright import version as twisted_version

from seance import __version__
from seance.metrics.catalogue import BUCKETS_SECONDS, Kind, Metric

__all__ = [
    "CONTENT_TYPE",
    "MAX_LABEL_VALUES",
    "OTHER",
    "Exposition",
    "Reading",
    "bounded",
    "build_labels",
    "counts",
    "sample",
]

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

MAX_LABEL_VALUES = 256
"""Values of a label that we do not control: another program's ``Verifier`` may refuse with any code."""

OTHER = "other"
"""The label of all further values."""

Reading = Mapping[str, "float | Mapping[tuple[str, ...], float]"]
"""By the metric's name: a number, or numbers by label values. A metric that is absent has no series."""


class Exposition(Collector):
    """The page of one relay or agent.

    Args:
        catalogue: All metrics that may be on the page.
        read: Returns the values that are not counted here; called for each page.
    """

    def __init__(self, catalogue: Sequence[Metric], read: Callable[[], Reading]) -> None:
        self._catalogue = {metric.name: metric for metric in catalogue}
        self._read = read
        self._counted: list[Counter | Histogram] = []
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def counter(self, name: str, label_values: Iterable[str] = ()) -> Counter:
        """Add the counter ``name``, with a series of value 0 for each of ``label_values``."""
        metric = self._catalogue[name]
        counter = Counter(name, metric.meaning, metric.labels, registry=None)
        for value in label_values:
            counter.labels(value)
        self._counted.append(counter)
        return counter

    def histogram(self, name: str) -> Histogram:
        """Add the histogram ``name``."""
        histogram = Histogram(name, self._catalogue[name].meaning, buckets=BUCKETS_SECONDS, registry=None)
        self._counted.append(histogram)
        return histogram

    def page(self) -> bytes:
        """Return the page, to be sent as ``CONTENT_TYPE``."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Family]:
        """Return all metrics; prometheus_client calls this."""
        for name, value in self._read().items():
            yield _family(self._catalogue[name], value)
        for counted in self._counted:
            for family in counted.collect():
                # disable_created_metrics() would have this effect on the metrics of an embedding program too.
                family.samples = [one for one in family.samples if not one.name.endswith("_created")]
                yield family


def bounded(known: set[str], value: str) -> str:
    """Return ``value`` and add it to ``known``, or return ``OTHER`` if there are too many of them."""
    if value not in known and len(known) >= MAX_LABEL_VALUES:
        return OTHER
    known.add(value)
    return value


def counts(counter: Counter) -> dict[str, int]:
    """Return the numbers of a counter with one label, by the label's value."""
    (family,) = counter.collect()
    samples = [one for one in family.samples if one.name.endswith("_total")]
    return {value: int(one.value) for one in samples for value in one.labels.values()}


def sample(metric: Counter | Histogram, suffix: str) -> float:
    """Return the sample of a metric without labels that has the name suffix ``suffix``."""
    (family,) = metric.collect()
    return next(one.value for one in family.samples if one.name.endswith(suffix))


def _family(metric: Metric, value: float | Mapping[tuple[str, ...], float]) -> Family:
    family: CounterMetricFamily | GaugeMetricFamily
    if metric.kind is Kind.COUNTER:
        family = CounterMetricFamily(metric.name.removesuffix("_total"), metric.meaning, labels=metric.labels)
    else:
        family = GaugeMetricFamily(metric.name, metric.meaning, labels=metric.labels)
    for label_values, number in value.items() if isinstance(value, Mapping) else [((), value)]:
        family.add_metric(label_values, number)
    return family


def build_labels() -> dict[tuple[str, ...], float]:
    """Return the one series of ``seance_build_info``."""
    return {(__version__, platform.python_version(), twisted_version): 1.0}
