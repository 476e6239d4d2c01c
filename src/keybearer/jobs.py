"""Work beside the requests, from a start to the stop.

    start ──▶ jobs, each round after round ──────▶ stop: each ends its round
          └─▶ keeper ─── the event loop ends and nobody has stopped us ──▶ stops us

Test clients have a loop for each request, and `asyncio.run` ends without asking: what is counted
then is written, and the next loop finds nothing of this one.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from keybearer.adapters.mail import PrintSender, SmtpSender
from keybearer.domain.errors import Unavailable
from keybearer.operations import outbox, reminders, upkeep
from keybearer.operations.app import App
from keybearer.verification.coherence import RENEW_MS
from keybearer.verification.usage import FLUSH_MS

log = logging.getLogger("keybearer")

_PATIENCE_SECONDS = 5.0
"""How long jobs may take to end their round when we stop."""


class Jobs:
    """The work of one start, in its event loop: made anew with each.

    Attributes:
        mail_waits: set when there is mail to send.
        stopping: set when rounds shall end.
        tasks: what runs.
    """

    def __init__(self) -> None:
        self.mail_waits = asyncio.Event()
        self.stopping = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []
        self._keeper: asyncio.Task[None] | None = None

    def keep(self, stop: Callable[[], Awaitable[None]]) -> None:
        """Has `stop` called when the event loop ends before anybody stopped us."""
        self._keeper = asyncio.create_task(self._keep(stop))

    def begin(self, app: App, sender: PrintSender | SmtpSender) -> None:
        """Starts what a serving process does."""
        self.tasks = [asyncio.create_task(job) for job in self._listed(app, sender)]

    async def end(self) -> None:
        """Lets each job end its round: one that is cut in the midst leaves half a connection."""
        self.stopping.set()
        waited = [*self.tasks]
        if self._keeper is not None and self._keeper is not asyncio.current_task():
            waited.append(self._keeper)
        if waited:
            _, unfinished = await asyncio.wait(waited, timeout=_PATIENCE_SECONDS)
            for task in unfinished:
                task.cancel()
            await asyncio.gather(*unfinished, return_exceptions=True)
        self.tasks = []

    async def _keep(self, stop: Callable[[], Awaitable[None]]) -> None:
        try:
            await self.stopping.wait()
        except asyncio.CancelledError:
            await stop()
            raise

    def _listed(
        self, app: App, sender: PrintSender | SmtpSender
    ) -> list[Coroutine[Any, Any, None]]:
        verifier = app.verifier
        return [
            self.every(RENEW_MS / 1000, "lease", verifier.lease.renew),
            self.every(1, "members", app.spread.look_after_members),
            self.every(FLUSH_MS / 1000, "usage", lambda: verifier.usage.secure(app.clock.now())),
            self.every(1, "quotas", verifier.quota.give_back_old),
            self.every(600, "retention", lambda: upkeep.forget_ended(app)),
            self.every(600, "signing", lambda: upkeep.rotate_signing(app)),
            self.every(600, "reminders", lambda: reminders.remind(app), rest=60),
            self.every(30, "mail", lambda: outbox.deliver(app, sender), wake=self.mail_waits),
        ]

    async def every(
        self,
        seconds: float,
        name: str,
        job: Callable[[], Awaitable[object]],
        *,
        wake: asyncio.Event | None = None,
        rest: float = 0,
    ) -> None:
        """Does a job again and again, or when `wake` is set; a lost dependency is waited out.

        Args:
            rest: seconds before the first round: for what no start should wait for, as test
                clients start us with each request.
        """
        lost = False
        if rest:
            await self._pause(rest, None)
        while not self.stopping.is_set():
            if wake is not None:
                wake.clear()
            try:
                await job()
                lost = False
            except Unavailable as error:
                if not lost:
                    log.warning("job.waits", extra={"job": name, "reason": error.reason})
                lost = True
            except Exception:
                log.exception("job.failed", extra={"job": name})
            await self._pause(seconds, wake)

    async def _pause(self, seconds: float, wake: asyncio.Event | None) -> None:
        """Until the time is over, `wake` is set, or we stop."""
        events = [self.stopping] if wake is None else [self.stopping, wake]
        waits = [asyncio.ensure_future(event.wait()) for event in events]
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
