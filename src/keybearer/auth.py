"""Auth: the one place where the parts are wired, started and stopped."""

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp

from keybearer.adapters.clock import SystemClock
from keybearer.adapters.mail import PrintSender, SmtpSender
from keybearer.adapters.passwords import Hasher
from keybearer.adapters.sql import batches
from keybearer.adapters.sql.database import migrate, open_database, versions
from keybearer.adapters.sql.quotas import StoredQuotas
from keybearer.adapters.sql.sqlite import SqliteDatabase
from keybearer.adapters.tracing import find_tracer
from keybearer.api import Api
from keybearer.domain.credentials import PepperRing
from keybearer.domain.errors import Misuse, Unavailable
from keybearer.domain.ids import RANDOM_BYTES, new_id
from keybearer.domain.ports import Clock, Database
from keybearer.domain.uses import Batch
from keybearer.jobs import Jobs
from keybearer.node import Node, journals_of
from keybearer.operations.app import App, Identify
from keybearer.operations.keyconfig import KeyConfig
from keybearer.operations.keyoptions import check_within
from keybearer.plugins import (
    ACCOUNTS,
    CORE,
    AnyOperation,
    Plugin,
    api_key,
    bearer,
    holds_of,
    jwt,
    listed,
    places_of,
)
from keybearer.secretfile import secrets_of
from keybearer.settings import Settings, load
from keybearer.verification import patience
from keybearer.verification.access import AccessTokens
from keybearer.verification.foreign import Schemes, SlowHashes
from keybearer.verification.grants import StoredGrants
from keybearer.verification.limiter import Limiter
from keybearer.verification.lookups import LookUps
from keybearer.verification.quota import Quota
from keybearer.verification.signing import SigningKeys
from keybearer.verification.spill import Spill
from keybearer.verification.usage import Usage
from keybearer.verification.verifier import Verifier
from keybearer.web.figures import Figures, Told
from keybearer.web.mount import Mount
from keybearer.web.pages.options import Pages
from keybearer.web.problem import BASE
from keybearer.web.siblings import Siblings

log = logging.getLogger("keybearer")


class Auth:
    """API keys and bearer tokens for one app.

    Args:
        database: `sqlite:///app.db` or `postgresql://…`; as the setting DATABASE_URL.
        plugins: what it can do; `api_key()`, `bearer()` and `jwt()` unless given.
        accounts: whether keybearer keeps the users. Without, owners are opaque ids of the host
            app, and `identify` tells who is logged in there.
        identify: the host's own log-in: raw headers -> the owner's id, or None.
        serving: whether this process answers requests. A script beside the serving processes says
            False: it has no cache, and its changes wait until all have stopped answering by
            the old.
        settings: every other setting by its name in lower case; environment and `.env` fill in.

    Attributes:
        accounts: whether keybearer keeps the users.
        api: the check of a request, and every operation.
        base: below which path our paths lie.
        pages_path: below which path the pages lie.
        parts: what is wired, once it is started; for integrations.
        node: this process among those that serve, once it is started.
        siblings: the other workers of this server, where METRICS_DIR is set.

    Raises:
        Misuse: a setting is wrong.
    """

    def __init__(
        self,
        database: str | None = None,
        plugins: Sequence[Plugin] | None = None,
        *,
        accounts: bool = True,
        identify: Identify | None = None,
        serving: bool = True,
        clock: Clock | None = None,
        **settings: object,
    ) -> None:
        self.plugins = (api_key(), bearer(), jwt()) if plugins is None else listed(plugins)
        given: dict[str, object] = {}
        for plugin in self.plugins:
            given |= {name: value for name, value in plugin.settings.items() if value is not None}
        given |= {**settings, "database_url": database}
        self.settings: Settings = load(given, dotenv=Path(".env"))
        for config in self.key_configs:
            check_within(config, self.settings, self.catalogue)
        if not accounts and identify is None:
            log.debug("accounts.off", extra={"hint": "self-service needs identify=…"})
        self.accounts = accounts
        self._identify = identify
        self._serving = serving
        self._clock = clock or SystemClock()
        self.base = BASE
        self.pages_path = ""
        self.parts: App | None = None
        self.node: Node | None = None
        self.siblings: Siblings | None = None
        self._told: Told | None = None
        self._slow_hashes: Hasher | None = None
        self._starting = asyncio.Lock()
        self._jobs: Jobs | None = None
        self.api = Api(self.running)

    @property
    def operations(self) -> tuple[AnyOperation, ...]:
        """Every operation that this keybearer has."""
        listed = [*CORE, *ACCOUNTS]
        for plugin in self.plugins:
            listed += [each for each in plugin.operations if each not in listed]
        return tuple(each for each in listed if self.accounts or not each.accounts)

    @property
    def key_configs(self) -> tuple[KeyConfig, ...]:
        """The configurations of keys; one that is all defaults where the app has none."""
        found = tuple(plugin.keys for plugin in self.plugins if plugin.keys is not None)
        return found or (KeyConfig(),)

    @property
    def catalogue(self) -> frozenset[str]:
        """The permissions that keys can have, as `resource:action`; empty means no catalogue."""
        listed = (plugin.catalogue for plugin in self.plugins if plugin.catalogue is not None)
        return next(listed, self.settings.permissions)

    def mount(self, app: ASGIApp, *, base: str = BASE, pages: Pages | None = None) -> ASGIApp:
        """The app with keybearer in front.

        `/api/auth/*` is ours, and so are the account pages, as `/en/account/api-keys`, where the
        extra `ui` is installed. All else goes on to `app`.

        Args:
            base: another path for ours; the links in mails and the documents go by it too.
            pages: how the pages look, and where they lie.

        Raises:
            Misuse: the base is no path, or has a slash too many; the extra is missing.
        """
        mounted = Mount(self, app, base=base, pages=pages)
        self.base = base
        self.pages_path = "" if pages is None else pages.path
        return mounted

    @contextlib.asynccontextmanager
    async def lifespan(self, _app: object = None) -> AsyncIterator[None]:
        """Starts and stops; for apps that call the API without mounting anything."""
        await self.start()
        try:
            yield
        finally:
            await self.stop()

    async def running(self) -> App:
        """The parts, started; whoever comes first without a lifespan starts them."""
        if self.parts is None:
            await self.start()
        if self.parts is None:
            raise Unavailable("keybearer is stopped")
        return self.parts

    async def start(self) -> None:
        """Opens the database, takes the serving lock, begins the work beside the requests.

        Raises:
            Misuse: a second process, a schema of another version, a file that cannot be written.
            Unavailable: the database cannot be reached.
        """
        async with self._starting:
            if self.parts is not None:
                return
            # Before anything is open: it may be refused. A visitor sends no mail.
            sender = self._sender() if self._serving else PrintSender()
            shared = self.settings.redis_url is not None
            database, lock = open_database(self.settings.database_url, shared=shared)
            node = Node(self.settings, database, lock, self._clock, serving=self._serving)
            jobs = Jobs()
            try:
                await _check_schema(database)
                await node.enter()
                if self._serving:
                    await self._meet_siblings()
                self.parts = await self._wire(database, node, jobs)
            except BaseException:
                await self._leave_siblings()
                await node.leave()
                await database.close()
                raise
            self.node, self._told, self._jobs = node, Told(node), jobs
            jobs.keep(self._abandoned)
            if self._serving:
                jobs.begin(self.parts, sender)

    async def stop(self) -> None:
        """Ends the work beside the requests, writes what was counted, lets go of the database."""
        async with self._starting:  # whoever starts again meanwhile finds the lock free
            app, self.parts = self.parts, None
            if app is not None:
                await self._end(app)

    async def _abandoned(self) -> None:
        """The event loop ends, and nobody has stopped us."""
        await self.stop()
        self._starting = asyncio.Lock()  # one that was waited for belongs to that loop

    async def _end(self, app: App) -> None:
        if self._jobs is not None:
            await self._jobs.end()
        await app.verifier.usage.end(app.clock.now())
        app.hasher.close()
        if self._slow_hashes is not None:
            self._slow_hashes.close()
        app.verifier.lease.end()
        with contextlib.suppress(Unavailable):  # told in the log
            await patience.in_time(patience.begin(app.verifier.quota.end()))
        await self._leave_siblings()
        if self.node is not None:
            await self.node.leave()
        await app.database.close()

    def figures(self, app: App) -> Figures:
        """What this process says of itself, for the metrics."""
        return [] if self._told is None else self._told(app)

    async def _meet_siblings(self) -> None:
        folder = self.settings.metrics_dir
        if folder is None:
            return

        def tell() -> Figures:
            return [] if self.parts is None else self.figures(self.parts)

        self.siblings = Siblings(Path(folder), tell)
        await self.siblings.start()

    async def _leave_siblings(self) -> None:
        siblings, self.siblings = self.siblings, None
        if siblings is not None:
            await siblings.stop()

    # --- wiring ---

    async def _wire(self, database: Database, node: Node, jobs: Jobs) -> App:
        settings, clock = self.settings, self._clock
        ring = PepperRing([secret.encode() for secret in secrets_of(settings)])
        holds = holds_of(self.plugins, self.catalogue, settings.user_permissions)
        limiter, tracer = Limiter(), find_tracer()
        configs = [config.within(settings) for config in self.key_configs]
        prefixes = dict.fromkeys(prefix for each in configs for prefix in each.prefixes or ())
        shared = await node.share(limiter)
        dialect = "sqlite" if settings.sqlite_path is not None else "postgresql"

        async def write_usage(batch: Batch, settled: Sequence[str]) -> bool:
            now = clock.now()
            with tracer.span("keybearer.flush") as span:
                span.tell(keys=len(batch.keys), counts=len(batch.counts))
                return await database.write(
                    lambda tx: batches.write(tx, batch, now=now, settled=settled, dialect=dialect)
                )

        signing = SigningKeys(
            database=database,
            ring=ring,
            clock=clock,
            interval_ms=settings.signing_key_rotation,
            token_ttl_ms=settings.access_token_ttl,
            new_kid=_fresh_id,
        )
        await signing.known()  # a SECRET that opens no key is told now, not at the first login
        look_ups = LookUps(database)
        access = AccessTokens(
            look_ups=look_ups,
            signing=signing,
            clock=clock,
            holds=holds,
            issuer=settings.base_url,
            must_verify=settings.require_email_verification,
        )
        self._slow_hashes = Hasher(threads=1, queue=4)
        grants = StoredGrants(
            look_ups=look_ups,
            database=database,
            clock=clock,
            ring=ring,
            limiter=limiter,
            holds=holds,
            accounts=self.accounts,
            must_verify=settings.require_email_verification,
            hashes=settings.service_tokens,
            access=access.grant,
            slow=SlowHashes(self._slow_hashes.check),
            pepper=settings.keyshield_pepper or "",
        )
        cookie = "__Host-keybearer.session_token" if settings.secure else "keybearer.session_token"
        verifier = Verifier(
            ring=ring,
            clock=clock,
            cache=node.cache,
            lease=node.lease,
            grants=grants,
            limiter=limiter,
            # Where all count in Redis, what this process counts is no state of the key.
            usage=Usage(
                write_usage,
                limiter.state if shared is None else lambda _id: None,
                new_id=_fresh_id,
                spill=await self._spill(database) if self._serving else None,
            ),
            quota=Quota(
                quotas=StoredQuotas(database), cache=node.cache, lease=node.lease, clock=clock
            ),
            cookie=cookie,
            prefixes=tuple(prefixes),
            shared=shared,
            schemes=Schemes(database, node.cache),
            tracer=tracer,
            readable=lambda credential: any(config.reads(credential) for config in configs),
            places=places_of(self.plugins),
        )
        return App(
            settings=settings,
            clock=clock,
            entropy=os.urandom,
            database=database,
            ring=ring,
            verifier=verifier,
            spread=node.spread,
            tracer=tracer,
            hasher=Hasher(),
            signing=signing,
            access=access,
            cookie=cookie,
            accounts=self.accounts,
            jwt=any(plugin.name == "jwt" for plugin in self.plugins),
            catalogue=self.catalogue,
            holds=holds,
            identify=self._identify,
            wake_mail=jobs.mail_waits.set,
            mounted_at=lambda: self.base,
            key_configs=self.key_configs,
            page=lambda path: f"{settings.base_url}{self.pages_path}/{path}",
        )

    async def _spill(self, database: Any) -> Spill:
        """Where usage waits for a lost database: looked for now, while it is there."""
        journals = await journals_of(self.settings, database)
        spill = Spill(journals, room=self.settings.spill_mb * 2**20, new_id=_fresh_id)
        spill.check()
        return spill

    def _sender(self) -> PrintSender | SmtpSender:
        smtp = self.settings.smtp_url
        return PrintSender() if smtp is None else SmtpSender(smtp, self.settings.mail_from)


def _fresh_id(now: int) -> str:
    return new_id(now, os.urandom(RANDOM_BYTES))


async def _check_schema(database: Any) -> None:
    if isinstance(database, SqliteDatabase):
        await migrate(database)
        return
    has, wanted = await versions(database)
    if has != wanted:
        state = "is empty" if has is None else f"has version {has}, this is {wanted}"
        raise Misuse(f"the database {state}: run `keybearer migrate`")
