"""What was counted, as the text that Prometheus reads, with what its library knows of the process.

Import it where the text is asked for: the library is megabytes that a Tower without readers never needs.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tower.metrics import FAMILIES

MEDIA_TYPE = CONTENT_TYPE_LATEST


def text() -> bytes:
    """All numbers as they are now."""
    return generate_latest()


class _Families(Collector):
    def collect(self) -> Iterator[Metric]:
        for family in FAMILIES:
            made = CounterMetricFamily if family.name.endswith("_total") else GaugeMetricFamily
            metric = made(family.name, family.says, labels=[family.label] if family.label else [])
            for value, count in family.counts.items():
                metric.add_metric([value] if family.label else [], count.value)
            yield metric


REGISTRY.register(_Families())
