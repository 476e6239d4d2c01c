"""Metrics for Prometheus, for whoever is on this machine or has a service token.

Verdicts are counted only for credentials that are ours: a forger must not be able to drown the
figures. Each figure is a worker's own, with its number: with many workers, a scrape meets one of
them, which asks the others (siblings.py). A worker that knows no others is called by its node.
"""

import importlib.util
import logging
from typing import TYPE_CHECKING

from starlette.types import Receive, Scope, Send

from keybearer.adapters.sql import outbox
from keybearer.domain.errors import Failure, Unavailable
from keybearer.domain.model import Anonymous, Refusal
from keybearer.operations.app import App
from keybearer.verification.patience import begin, in_time
from keybearer.web.exchange import client_ip, new_request_id, send_answer, send_problem, started
from keybearer.web.figures import Figures
from keybearer.web.local import asked_locally
from keybearer.web.problem import of_failure, of_loss

if TYPE_CHECKING:
    from keybearer.auth import Auth

log = logging.getLogger(__name__)

INSTALLED = importlib.util.find_spec("prometheus_client") is not None
"""The extra `server` has it."""


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
            from keybearer.web.exposition import CONTENT_TYPE, exposition  # noqa: PLC0415 -- an extra

            body = exposition(await self._told(app), await _waiting_mail(app))
        except Failure as failure:
            answer = of_failure(failure, scope=scope, request_id=request_id)
            await send_problem(send, answer, settings)
            return
        except Unavailable as loss:
            answer = of_loss(loss, scope=scope, request_id=request_id)
            await send_problem(send, answer, settings)
            return
        headers = [
            (b"content-type", CONTENT_TYPE),
            (b"cache-control", b"no-store"),
            (b"x-request-id", request_id.encode()),
        ]
        await send_answer(send, 200, body, headers, settings)

    async def _told(self, app: App) -> dict[str, Figures | None]:
        """The figures of each worker of this server; of this one alone if it knows no others."""
        own, siblings, node = self._auth.figures(app), self._auth.siblings, self._auth.node
        if siblings is None:
            return {"" if node is None else node.id: own}
        told = {siblings.number: own, **await siblings.ask()}
        return {str(number): told[number] for number in sorted(told)}


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
