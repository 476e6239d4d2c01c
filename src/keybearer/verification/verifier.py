"""From headers to a verdict: read, find, judge, count.

    credential = read(headers)              one, none, or a refusal
    entry      = cache[digest]              only under the lease (coherence.py)
                 or the database            one indexed read, single flight
    refusal    = judge(grant, need, ip)     pure
    refusal    = limit, then quota          a refused request changes nothing
    tally      counts it                    memory only (usage.py)

A broken dependency is an exception (`Unavailable`, 503), never a verdict.
"""

import asyncio
import os
from collections.abc import Callable
from hashlib import blake2b
from typing import Protocol
from urllib.parse import unquote_to_bytes

import msgspec

from keybearer.adapters.tracing import NO_TRACER
from keybearer.domain.credentials import (
    REFRESH_PREFIX,
    SERVICE_PREFIX,
    PepperRing,
    well_formed,
)
from keybearer.domain.foreign import NO_SCHEMES, Scheme
from keybearer.domain.judgement import judge
from keybearer.domain.limits import Take, until_refill
from keybearer.domain.model import ANONYMOUS, Grant, Key, Kind, RateLimit, Refusal, Verdict
from keybearer.domain.ports import Clock, Tracer
from keybearer.verification import patience
from keybearer.verification.cache import Cache, Entry, fresh_until
from keybearer.verification.foreign import Schemes
from keybearer.verification.lease import AnyLease
from keybearer.verification.limiter import Limiter
from keybearer.verification.presented import Headers, Places, Presented, read
from keybearer.verification.quota import Left, Quota
from keybearer.verification.shared import SharedLimiter
from keybearer.verification.usage import ACCEPTED, SecretTally, Usage, Uses

NO_NEEDS: frozenset[str] = frozenset()
_GUARDED: frozenset[Kind] = frozenset({"key", "session", "access"})
_KEYS: frozenset[Kind] = frozenset({"key", "service"})
_NEVER_ELSEWHERE: frozenset[Kind | None] = frozenset({"service", "access"})
"""What no key looks like that was made elsewhere; one with two dots does so in its own header."""
_OURS_ALONE = (SERVICE_PREFIX.encode(), REFRESH_PREFIX.encode())


class Grants(Protocol):
    """Where grants come from when the cache has none; each raises Unavailable."""

    async def key(self, credential: bytes) -> Grant | None:
        """The grant of a well-formed API key."""
        ...

    async def session(self, token: bytes) -> Grant | None:
        """The grant of a session token."""
        ...

    async def service(self, token: bytes) -> Grant | None:
        """The grant of a service token."""
        ...

    async def access(self, token: bytes) -> Grant | Refusal:
        """The grant of an access token whose signature and claims hold."""
        ...

    async def foreign(self, credential: bytes, schemes: frozenset[Scheme]) -> Grant | None:
        """The grant of an API key that was made elsewhere and imported."""
        ...


class Verified:
    """An accepted credential: its grant, the caller it stands for, what its quota has left."""

    __slots__ = ("_entry", "grant", "left", "session")

    def __init__(self, entry: Entry, left: Left | None) -> None:
        self.grant = entry.grant
        self.session = entry.session
        self.left = left
        self._entry = entry

    def record(self, read_now: Key | None = None) -> Key | None:
        """The key's record with every use so far, this one too; None where it is no key.

        Args:
            read_now: the record from the database, where the cached one will not do.
        """
        tally, written = self._entry.tally, self._entry.written
        if read_now is not None:
            return tally.onto(read_now, written=tally.written)
        key = self.grant.record
        if key is not None and self.left is not None:
            key = msgspec.structs.replace(
                key, remaining=self.left.remaining, last_refill_at=self.left.refilled_at
            )
        return None if key is None else tally.onto(key, written=written)

    def uses(self, key: Key) -> Uses:
        """What every use so far changes of the record, `key`, that came with the grant."""
        return self._entry.tally.uses(key, written=self._entry.written)


class Verifier:
    """The check of one process.

    Args:
        cookie: the name of the session cookie.
        prefixes: the prefixes that our API keys may have.
        shared: the limits of all processes; without, this one counts alone.
        schemes: which keys made elsewhere there are; without, none.
        tracer: told of each check that is not answered from memory.
        readable: whether a text with one of the prefixes can be a key at all.
        places: where keys may stand beside `X-API-Key`.

    Attributes:
        misses: checks of credentials that are ours, and that the cache had no answer to.
    """

    def __init__(
        self,
        *,
        ring: PepperRing,
        clock: Clock,
        cache: Cache,
        lease: AnyLease,
        grants: Grants,
        limiter: Limiter,
        usage: Usage,
        quota: Quota,
        cookie: str,
        prefixes: tuple[str, ...],
        shared: SharedLimiter | None = None,
        schemes: Schemes | None = None,
        tracer: Tracer = NO_TRACER,
        readable: Callable[[bytes], bool] | None = None,
        places: Places | None = None,
    ) -> None:
        self.misses = 0
        self.places = places or None  # one that has nothing costs nothing
        self.cache = cache
        self.lease = lease
        self.limiter = limiter
        self.quota = quota
        self.usage = usage
        self._shared = shared
        self._schemes = schemes
        self._ring = ring
        self._clock = clock
        self._grants = grants
        # The cache's index needs no pepper: a key that only this process knows, and a hash that
        # costs a quarter of OpenSSL's HMAC. 128 bits: nobody can compute one, let alone search.
        self._index = blake2b(key=os.urandom(32), digest_size=16)
        self._cookie = cookie.encode()
        self._tracer = tracer
        self._prefixes = tuple(prefix.encode() for prefix in prefixes)
        self._readable = readable or (lambda credential: well_formed(credential, self._prefixes))
        self._flights: dict[bytes, tuple[int, asyncio.Task[Entry | Refusal | None]]] = {}

    async def verify(
        self,
        headers: Headers,
        ip: str | None,
        needed: frozenset[str] = NO_NEEDS,
        *,
        accept: frozenset[Kind] = _GUARDED,
        charge: bool = True,
    ) -> Verdict:
        """The verdict on a request.

        Args:
            headers: raw pairs with lower-case names.
            ip: the client's address.
            needed: permissions, as `resource:action`.
            accept: the kinds of credential that are good here.
            charge: whether the request counts against limit and quota.

        Raises:
            Unavailable: a dependency is lost.
        """
        if self.places is not None:
            headers = self.places.told(headers)
        presented = read(headers, self._cookie)
        if not isinstance(presented, Presented):
            return presented or ANONYMOUS
        if presented.via == "cookie":
            token = self._ring.unsign(_percent_decoded(presented.credential))
            if token is None:
                return ANONYMOUS  # not a cookie of ours: as if it were not there
            presented.credential = token.encode()
        verified = await self.check(presented, ip, needed, accept=accept, charge=1 if charge else 0)
        return verified if isinstance(verified, Refusal) else verified.session

    def warm(
        self,
        headers: Headers,
        ip: str | None,
        needed: frozenset[str] = NO_NEEDS,
        *,
        accept: frozenset[Kind] = _GUARDED,
        charge: bool = True,
    ) -> Verdict | None:
        """The verdict from memory alone, without a coroutine; None when `verify` must be asked.

        The hot path of the guards: a credential in the cache, under the lease, with units of its
        quota at hand where it has one, and without a limit that other processes count too.
        Arguments as `verify`.
        """
        if self.places is not None:
            headers = self.places.told(headers)
        presented = read(headers, self._cookie)
        if presented is None:
            return ANONYMOUS
        if isinstance(presented, Refusal):
            return presented
        if presented.via == "cookie":
            return None
        now = self._clock.now()
        if now >= self.lease.until:
            return None
        hashed = self._index.copy()
        hashed.update(presented.credential)
        entry = self.cache.get(hashed.digest())
        if entry is None or (now >= entry.fresh_until and not self.lease.stretched):
            return None
        grant, session = entry.grant, entry.session
        if grant.metered and charge and not self.quota.has(grant.id, now):
            return None
        kind = session.kind
        if kind not in accept or (presented.via == "header" and kind not in _KEYS):
            return _misplaced(grant, presented)
        refusal = judge(grant, needed, ip, now)
        if refusal is None and charge:
            if grant.limit is not None:
                if self._shared is not None:
                    return None
                refusal = self._take(grant, grant.limit, now, 1)
            if grant.metered and refusal is None:
                self.quota.spend(grant.id, now)
        if refusal is not None:
            entry.tally.refuse(now, refusal.code, ip, presented.user_agent)
            return refusal
        if charge or session.session_id is not None:
            entry.uses.accept(now, ip, presented.user_agent)
        return session

    def warm_service(self, token: bytes) -> bool:
        """Whether a credential is a service token that is in memory; else `verify` must be asked.

        Service tokens have no limit, no network and no count.
        """
        now = self._clock.now()
        if now >= self.lease.until:
            return False
        hashed = self._index.copy()
        hashed.update(token)
        entry = self.cache.get(hashed.digest())
        if entry is None or now >= entry.fresh_until or entry.session.kind != "service":
            return False
        return judge(entry.grant, NO_NEEDS, None, now) is None

    async def check(
        self,
        presented: Presented,
        ip: str | None,
        needed: frozenset[str] = NO_NEEDS,
        *,
        accept: frozenset[Kind] = _GUARDED,
        charge: int = 1,
        entry: Entry | None = None,
    ) -> Verified | Refusal:
        """The verdict on one credential.

        Args:
            charge: what it costs, 0 for nothing.
            entry: what was just read of it, where that is so.
        """
        now = self._clock.now()
        if entry is None:
            hashed = self._index.copy()
            hashed.update(presented.credential)
            digest = hashed.digest()
            entry = self.cache.get(digest) if now < self.lease.until else None
            if entry is None or (now >= entry.fresh_until and not self.lease.stretched):
                return await self._check_anew(
                    digest, presented, ip, needed, accept=accept, charge=charge
                )
        grant, session = entry.grant, entry.session
        kind = session.kind
        if kind not in accept or (presented.via == "header" and kind not in _KEYS):
            return _misplaced(grant, presented)
        refusal = judge(grant, needed, ip, now)
        left: Left | None = None
        if refusal is None and charge:
            if grant.metered:
                left, refusal = await self._take_metered(grant, now, charge)
            elif grant.limit is not None:
                if self._shared is None:
                    refusal = self._take(grant, grant.limit, now, charge)
                else:
                    taken = await self._take_limit(grant, now, charge)
                    refusal = taken if isinstance(taken, Refusal) else None
        if refusal is not None:
            entry.tally.refuse(now, refusal.code, ip, presented.user_agent)
            return refusal
        if charge or session.session_id is not None:
            # Whoever looks at the own keys uses the login, though it costs nothing.
            entry.uses.accept(now, ip, presented.user_agent)
        return Verified(entry, left)

    # --- limit and quota ---

    def _take(self, grant: Grant, limit: RateLimit, now: int, cost: int) -> Refusal | None:
        window = self.limiter.window(grant.session.id, limit, now)
        if window.take(now, cost):
            return None
        return _limited(grant, window.retry_after(now, cost))

    async def _take_limit(self, grant: Grant, now: int, cost: int) -> Take | Refusal | None:
        """What was taken from the limit, wherever it is counted; None where there is none."""
        limit = grant.limit
        if limit is None:
            return None
        if self._shared is None:
            taken = self.limiter.take(grant.id, limit, now, cost)
        else:
            taken = await self._shared.take(grant.id, limit, now, cost)
        return taken if taken.accepted else _limited(grant, taken.retry_after_ms)

    async def _give_back(self, id: str, limit: RateLimit, now: int, cost: int, taken: Take) -> None:
        if self._shared is None:
            self.limiter.window(id, limit, now).give_back(now, cost)
        else:
            await self._shared.give_back(id, limit, now, cost, taken)

    async def _take_metered(
        self, grant: Grant, now: int, cost: int
    ) -> tuple[Left | None, Refusal | None]:
        """Limit first, then quota; what the quota refuses is given back to the limit."""
        taken = await self._take_limit(grant, now, cost)
        if isinstance(taken, Refusal):
            return None, taken
        left: Left | None = None
        try:
            left = await self.quota.take(grant, cost)
        finally:
            if left is None and taken is not None and grant.limit is not None:
                await self._give_back(grant.id, grant.limit, now, cost, taken)
        return left, _spent(grant, now) if left is None else None

    # --- when the cache has no answer ---

    async def _check_anew(
        self,
        digest: bytes,
        presented: Presented,
        ip: str | None,
        needed: frozenset[str],
        *,
        accept: frozenset[Kind],
        charge: int,
    ) -> Verified | Refusal:
        kind = self._kind(presented.credential)
        with self._tracer.span("keybearer.verify") as span:
            span.tell(kind=kind or "none")
            verdict: Verified | Refusal | Entry = await self._find(digest, presented, kind)
            if isinstance(verdict, Entry):
                self.misses += 1  # not those that are not ours: nobody shall drown the figures
                verdict = await self.check(
                    presented, ip, needed, accept=accept, charge=charge, entry=verdict
                )
            span.tell(outcome=verdict.code if isinstance(verdict, Refusal) else ACCEPTED)
            return verdict

    async def _find(
        self, digest: bytes, presented: Presented, kind: Kind | None
    ) -> Entry | Refusal:
        credential = presented.credential
        if presented.via == "header" and kind not in _KEYS:
            kind = None
        elsewhere = self._may_be_elsewhere(kind, presented)
        if kind is None and not elsewhere:
            return self._refused(presented)
        await self.lease.hold()
        begun = self.cache.generation
        kept = self.cache.get(digest)
        if kept is not None and (self._clock.now() < kept.fresh_until or self.lease.stretched):
            return kept  # only the lease was over: what it goes by is what it was
        flight = self._flights.get(digest)
        if flight is None or flight[0] != begun:
            # A read that began before an invalidation is no answer to a request after it.
            task = patience.begin(self._load(kind, digest, credential, begun, elsewhere=elsewhere))
            flight = (begun, task)
            self._flights[digest] = flight
            task.add_done_callback(lambda done: self._landed(digest, done))
        return await patience.in_time(flight[1]) or self._refused(presented)

    def _may_be_elsewhere(self, kind: Kind | None, presented: Presented) -> bool:
        """Whether what is presented may be a key that was imported; asks no database."""
        if self._schemes is None or presented.via == "cookie" or kind in _NEVER_ELSEWHERE:
            return False
        if kind == "key" and well_formed(presented.credential, self._prefixes):
            return False  # it has our checksum; what the app's own generator made has none
        if presented.credential.startswith(_OURS_ALONE):
            return False
        if self._clock.now() >= self.lease.until:
            return True  # to be found out under the lease
        known = self._schemes.known
        return known is None or bool(known)

    def _refused(self, presented: Presented) -> Refusal:
        as_key = presented.via == "header" or presented.credential.startswith(self._prefixes)
        return Refusal(code="INVALID_API_KEY" if as_key else "INVALID_ACCESS_TOKEN")

    def _landed(self, digest: bytes, task: "asyncio.Task[Entry | Refusal | None]") -> None:
        flight = self._flights.get(digest)
        if flight is not None and flight[1] is task:
            del self._flights[digest]

    async def _load(
        self, kind: Kind | None, digest: bytes, credential: bytes, begun: int, *, elsewhere: bool
    ) -> Entry | Refusal | None:
        grant: Grant | Refusal | None = None
        # Read with any miss, so that what is no key of ours need not ask.
        schemes = NO_SCHEMES if self._schemes is None else await self._schemes.read()
        if kind == "key":
            grant = await self._grants.key(credential)
        elif kind == "service":
            grant = await self._grants.service(credential)
        elif kind == "access":
            grant = await self._grants.access(credential)
        elif kind == "session":
            grant = await self._grants.session(credential)
        if grant is None and elsewhere and schemes:
            grant = await self._grants.foreign(credential, schemes)
        if grant is None or isinstance(grant, Refusal):
            return grant
        session, of_secret = grant.session, grant.secret_digest
        tally = self.usage.tally(session.session_id or session.id, is_key=session.kind == "key")
        entry = Entry(
            grant=grant,
            session=session,
            tally=tally,
            uses=tally if of_secret is None else SecretTally(tally, of_secret),
            fresh_until=fresh_until(self._clock.now()),
            written=tally.written,
        )
        self.cache.put(digest, entry, begun=begun)
        return entry

    def _kind(self, credential: bytes) -> Kind | None:
        """What a credential looks like; None where it is nothing that we made."""
        if credential.startswith(self._prefixes):
            return "key" if self._readable(credential) else None
        if credential.startswith(SERVICE_PREFIX.encode()):
            return "service" if well_formed(credential, [SERVICE_PREFIX.encode()]) else None
        if credential.startswith(REFRESH_PREFIX.encode()):
            return None  # good at /refresh, /logout and /revoke alone
        if credential.count(b".") == 2:
            return "access"
        return "session"


def _limited(grant: Grant, retry_after_ms: int) -> Refusal:
    return Refusal(
        code="RATE_LIMITED", retry_after_ms=retry_after_ms, limit=grant.limit, id=grant.id
    )


def _spent(grant: Grant, now: int) -> Refusal:
    """A quota with too little left, and when it is refilled, if ever."""
    key = grant.record
    if key is None or key.refill_amount is None or key.refill_interval_ms is None:
        return Refusal(code="USAGE_EXCEEDED", id=grant.id)
    return Refusal(
        code="USAGE_EXCEEDED",
        retry_after_ms=until_refill(
            key.refill_interval_ms, key.last_refill_at, key.created_at, now
        ),
        limit=RateLimit(maximum=key.refill_amount, window_ms=key.refill_interval_ms),
        id=grant.id,
    )


def _misplaced(grant: Grant, presented: Presented) -> Refusal:
    """A good credential at a place that is not for its kind."""
    if grant.kind == "key":
        return Refusal(code="SESSION_REQUIRED", id=grant.id)
    return Refusal(code="INVALID_API_KEY" if presented.via == "header" else "INVALID_ACCESS_TOKEN")


def _percent_decoded(value: bytes) -> str:
    return unquote_to_bytes(value).decode("latin-1")
