"""What every operation works with: the parts of one running keybearer, wired by Auth."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from keybearer.adapters.languages import Language, language
from keybearer.adapters.passwords import Hasher
from keybearer.adapters.sql import audit
from keybearer.domain.changes import Change
from keybearer.domain.credentials import Entropy, PepperRing
from keybearer.domain.errors import Failure, Unavailable
from keybearer.domain.ids import new_id
from keybearer.domain.model import Session
from keybearer.domain.ports import Body, Clock, Database, T, Tracer, Transaction
from keybearer.operations.declaration import Call
from keybearer.settings import Settings
from keybearer.verification import patience
from keybearer.verification.access import AccessTokens
from keybearer.verification.coherence import NOBODY, Receipt
from keybearer.verification.owners import Holds
from keybearer.verification.presented import Headers
from keybearer.verification.signing import SigningKeys
from keybearer.verification.spread import Spread
from keybearer.verification.verifier import Verifier

if TYPE_CHECKING:
    from keybearer.operations.keyconfig import KeyConfig

Identify = Callable[[Headers], Awaitable[str | None]]
"""The host app's own log-in: raw headers -> the owner's opaque id, or None."""


@dataclass(frozen=True, slots=True)
class App:
    """The parts of one running keybearer.

    Attributes:
        cookie: the name of the session cookie.
        accounts: whether keybearer keeps the users; else owners are opaque ids of the host's.
        jwt: whether sessions get access tokens too.
        catalogue: the permissions that keys can have; empty means that only the server sets them.
        holds: what an owner may do at the most.
        identify: who is logged in to the host app, by its headers: the owner's id, or None.
        wake_mail: tells the mail loop that the outbox has something.
        mounted_at: below which path requests find us, as `/api/auth`.
        key_configs: the configurations of keys, at least one.
        page: the address of a page by its path, as `en/account/api-keys`.
    """

    settings: Settings
    clock: Clock
    entropy: Entropy
    database: Database
    ring: PepperRing
    verifier: Verifier
    spread: Spread
    tracer: Tracer
    hasher: Hasher
    signing: SigningKeys
    access: AccessTokens
    cookie: str
    accounts: bool
    jwt: bool
    catalogue: frozenset[str]
    holds: Holds
    identify: Identify | None
    wake_mail: Callable[[], None]
    mounted_at: Callable[[], str]
    page: Callable[[str], str]
    key_configs: tuple["KeyConfig", ...]
    _changes: "set[asyncio.Task[Any]]" = field(default_factory=set, init=False, repr=False)
    _shared: "dict[object, asyncio.Task[None]]" = field(
        default_factory=dict, init=False, repr=False
    )

    @property
    def api(self) -> str:
        """The address below which our paths lie, for links."""
        return self.settings.base_url + self.mounted_at()

    def language(self, locale: str | None) -> Language:
        """What somebody reads; the first of LOCALES where nobody has chosen one that we have."""
        locales = self.settings.locales
        return language(locale if locale in locales else locales[0])

    def new_id(self, now: int) -> str:
        """A new UUIDv7."""
        return new_id(now, self.entropy(10))

    async def change(
        self, body: Body[T], tags: Callable[[T], tuple[str, ...]]
    ) -> tuple[T, Receipt]:
        """Commits a change that verdicts depend on, and returns when nobody answers by the old.

        What has begun goes on to its end, also without the caller.

        Args:
            tags: what the change touches: `key:<id>`, `owner:<id>`, `session:<id>`,
                `service:<id>`.

        Raises:
            Unavailable: the database was lost, perhaps after the commit; or (REVOCATION_PENDING)
                it is committed and not spread.
        """
        # A caller that goes away must not leave a commit that the cache is not told of.
        task = asyncio.ensure_future(self._change(body, tags))
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        return await asyncio.shield(task)

    async def shared(self, name: object, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Does something once for all who want the same while it is under way."""
        task = self._shared.get(name)
        if task is None:
            task = self._shared[name] = patience.begin(work())
            task.add_done_callback(lambda _: self._shared.pop(name))
        await asyncio.shield(task)

    async def _change(
        self, body: Body[T], tags: Callable[[T], tuple[str, ...]]
    ) -> tuple[T, Receipt]:
        change: Change | None = None

        async def announced(tx: Transaction) -> T:
            nonlocal change
            result = await body(tx)
            touched = tags(result)
            if touched:
                change = await self.spread.announce(tx, touched)
            return result

        try:
            result = await self.database.write(announced)
        except BaseException:
            # The line may have been cut while the commit was under way: it may hold.
            if change is not None:
                self.spread.forget(change.tags)
            raise
        if change is None:
            return result, NOBODY
        try:
            return result, await self._settle(change)
        except Unavailable as error:
            raise Unavailable(error.reason, code="REVOCATION_PENDING") from error

    async def _settle(self, change: Change) -> Receipt:
        with self.tracer.span("keybearer.settle") as span:
            receipt = await self.spread.settle(change)
            span.tell(nodes=receipt.nodes, waited_ms=receipt.waited_ms)
            return receipt


async def record(
    call: Call,
    tx: Transaction,
    event: str,
    *,
    owner_id: str | None,
    target_id: str | None = None,
    outcome: Literal["success", "refused"] = "success",
    actor_id: str | None = None,
    head: audit.Head | None = None,
    **details: str | int | bool | None,
) -> None:
    """Writes an audit event in the caller's transaction.

    Args:
        event: `noun.verb` in the past tense, as `key.revoked`.
        owner_id: whose trail it belongs to.
        target_id: what it was done to; the owner, unless another thing is named.
        actor_id: who did it, where the caller presented no credential (a login).
        head: the end of the owner's chain, where this transaction has locked it already.
        details: more facts, never a secret.
    """
    event_ = told(
        call, event, owner_id=owner_id, target_id=target_id, outcome=outcome, actor_id=actor_id,
        **details,
    )  # fmt: skip
    await audit.append(tx, call.app.ring, event_, head=head)


def told(
    call: Call,
    event: str,
    *,
    owner_id: str | None,
    target_id: str | None = None,
    outcome: Literal["success", "refused"] = "success",
    actor_id: str | None = None,
    **details: str | int | bool | None,
) -> audit.Event:
    """The same event, for who writes many at once."""
    kind, who = "anonymous", actor_id
    if isinstance(call.caller, Session):
        kind = call.caller.kind
        who = call.caller.id if kind in ("key", "service", "operator") else call.caller.subject
    return audit.Event(
        id=call.app.new_id(call.now),
        at=call.now,
        event=event,
        outcome=outcome,
        actor_kind=kind,
        actor_id=who,
        owner_id=owner_id,
        target_id=owner_id if target_id is None else target_id,
        ip=call.facts.ip,
        user_agent=call.facts.user_agent,
        request_id=call.facts.id,
        details=details,
    )


def require_accounts(call: Call) -> None:
    """Accounts are a part one can leave out: then their operations do not exist.

    Raises:
        Failure: NOT_FOUND.
    """
    if not call.app.accounts:
        raise Failure("NOT_FOUND")
