"""Figures of several workers, as Prometheus reads them."""

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from keybearer.web.figures import Buckets, Figure, Figures

CONTENT_TYPE = CONTENT_TYPE_LATEST.encode()

_Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily


def exposition(told: Mapping[str, Figures | None], waiting_mail: int | None) -> bytes:
    """Everything that is counted, as Prometheus reads it.

    Args:
        told: by worker; None of one that does not answer.
        waiting_mail: the outbox is everybody's.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Figures(told, waiting_mail))
    return generate_latest(registry)


class _Figures(Collector):
    """What the workers said of themselves."""

    def __init__(self, told: Mapping[str, Figures | None], waiting_mail: int | None) -> None:
        self._told = told
        self._waiting_mail = waiting_mail

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily(
            "keybearer_worker_up", "Whether a worker tells its figures.", labels=["worker"]
        )
        families: dict[str, _Family] = {}
        for worker, figures in self._told.items():
            up.add_metric([worker], figures is not None)
            for figure in figures or ():
                family = families.get(figure.name)
                if family is None:
                    family = families[figure.name] = _family(figure)
                for labels, value in figure.values:
                    _add(family, [*labels, worker], value)
        yield up
        yield from families.values()
        if self._waiting_mail is not None:
            yield GaugeMetricFamily(
                "keybearer_outbox_waiting",
                "Mails not sent and not given up.",
                value=self._waiting_mail,
            )


def _family(figure: Figure) -> _Family:
    name, labels = f"keybearer_{figure.name}", [*figure.labels, "worker"]
    if figure.kind == "counter":
        return CounterMetricFamily(name, figure.text, labels=labels)
    if figure.kind == "gauge":
        return GaugeMetricFamily(name, figure.text, labels=labels)
    return HistogramMetricFamily(name, figure.text, labels=labels)


def _add(family: _Family, labels: list[str], value: float | Buckets) -> None:
    if isinstance(family, HistogramMetricFamily):
        if isinstance(value, Buckets):
            family.add_metric(labels, list(value.buckets), value.total)
    elif not isinstance(value, Buckets):
        family.add_metric(labels, value)
