"""Metrics for Prometheus, for whoever is on this machine or has a service token.

Verdicts are counted only for credentials that are ours: a forger must not be able to drown the
figures. No label holds an id, an address or a name.
"""

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

from starlette.types import Receive, Scope, Send

from keybearer.adapters.sql import outbox
from keybearer.domain.errors import Failure, Unavailable
from keybearer.domain.model import Anonymous, Refusal
from keybearer.operations.app import App
from keybearer.verification.patience import begin, in_time
from keybearer.web.exchange import client_ip, new_request_id, send_answer, send_problem, started
from keybearer.web.local import asked_locally
from keybearer.web.problem import of_failure, of_loss

try:
    from prometheus_client import CollectorRegistry, Metric
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
    from prometheus_client.registry import Collector
except ImportError:  # the extra `server` is not installed
    INSTALLED = False
else:
    INSTALLED = True

if TYPE_CHECKING:
    from keybearer.auth import Auth

log = logging.getLogger(__name__)


class Metrics:
    """The endpoint."""

    def __init__(self, auth: "Auth") -> None:
        self._auth = auth

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        settings = self._auth.settings
        request_id = new_request_id()
        try:
            if not INSTALLED:
                raise Failure("NOT_FOUND")
            app = await started(self._auth)
            if not asked_locally(scope):
                await _admit(app, scope)
            body = exposition(app, await _waiting_mail(app))
        except Failure as failure:
            answer = of_failure(failure, scope=scope, request_id=request_id)
            await send_problem(send, answer, settings)
            return
        except Unavailable as loss:
            answer = of_loss(loss, scope=scope, request_id=request_id)
            await send_problem(send, answer, settings)
            return
        headers = [
            (b"content-type", CONTENT_TYPE_LATEST.encode()),
            (b"cache-control", b"no-store"),
            (b"x-request-id", request_id.encode()),
        ]
        await send_answer(send, 200, body, headers, settings)


async def _admit(app: App, scope: Scope) -> None:
    """Lets a service token pass.

    Raises:
        Failure: LOOPBACK_ONLY for anybody else, the credential's own code for a bad one.
    """
    verdict = await app.verifier.verify(
        scope["headers"],
        client_ip(scope, app.settings),
        accept=frozenset({"service", "key", "session", "access"}),
        charge=False,
    )
    if isinstance(verdict, Refusal):
        raise verdict.failure()
    if isinstance(verdict, Anonymous) or verdict.kind != "service":
        raise Failure("LOOPBACK_ONLY")


async def _waiting_mail(app: App) -> int | None:
    """How many mails wait; None when the database does not say so in time."""
    try:
        return await in_time(begin(app.database.read(outbox.waiting)))
    except Unavailable as error:
        log.warning("metrics.waits", extra={"reason": error.reason})
        return None


def exposition(app: App, waiting_mail: int | None) -> bytes:
    """Everything that is counted, as Prometheus reads it."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Figures(app, waiting_mail))
    return generate_latest(registry)


if INSTALLED:

    class _Figures(Collector):
        """What the parts of one app say of themselves, now."""

        def __init__(self, app: App, waiting_mail: int | None) -> None:
            self._app = app
            self._waiting_mail = waiting_mail

        def collect(self) -> Iterator[Metric]:
            verifier = self._app.verifier
            now = self._app.clock.now()
            verdicts = CounterMetricFamily(
                "keybearer_verdicts",
                "Checks of credentials that are ours, a second late at the most.",
                labels=["kind", "outcome"],
            )
            for (kind, outcome), n in sorted(verifier.usage.totals.items()):
                verdicts.add_metric([kind, outcome], n)
            yield verdicts
            yield CounterMetricFamily(
                "keybearer_cache_invalidations",
                "Changes that dropped cached grants.",
                value=verifier.cache.generation,
            )
            spill = verifier.usage.spill
            yield CounterMetricFamily(
                "keybearer_usage_samples_dropped",
                "Events of the activity of keys that had no room on the disk in an outage.",
                value=0 if spill is None else spill.samples_dropped,
            )
            gauges: list[tuple[str, str, float | None]] = [
                ("cache_entries", "Cached grants.", len(verifier.cache)),
                ("cache_capacity", "Cached grants at the most.", verifier.cache.size),
                (
                    "lease_remaining_seconds",
                    "How long the cache may be answered from without another renewal.",
                    max(0, verifier.lease.until - now) / 1000,
                ),
                ("rate_limit_windows", "Keys whose limit is counted.", len(verifier.limiter)),
                (
                    "usage_unwritten_seconds",
                    "How long ago all that was counted had been written.",
                    None
                    if verifier.usage.written_at is None
                    else max(0, now - verifier.usage.written_at) / 1000,
                ),
                (
                    "usage_batches_waiting",
                    "Batches of usage that are not in the database.",
                    verifier.usage.waiting,
                ),
                (
                    "usage_spilled_bytes",
                    "Usage that waits on the disk for the database.",
                    0 if spill is None else spill.size,
                ),
                ("outbox_waiting", "Mails not sent and not given up.", self._waiting_mail),
            ]
            for name, text, value in gauges:
                if value is not None:
                    yield GaugeMetricFamily(f"keybearer_{name}", text, value=value)
