"""From headers to a verdict: read, find, judge, count.

    credential = read(headers)              one, none, or a refusal
    entry      = cache[digest]              only under the lease (coherence.py)
                 or the database            one indexed read, single flight (finder.py)
    refusal    = judge(grant, need, ip)     pure
    refusal    = limit, then quota          a refused request changes nothing (metering.py)
    tally      counts it                    memory only (usage.py)

A broken dependency is an exception (`Unavailable`, 503), never a verdict.
"""

import os
from collections.abc import Callable
from hashlib import blake2b
from urllib.parse import unquote_to_bytes

import msgspec

from keybearer.adapters.tracing import NO_TRACER
from keybearer.domain.credentials import PepperRing
from keybearer.domain.judgement import judge
from keybearer.domain.model import ANONYMOUS, Grant, Key, Kind, Refusal, Verdict
from keybearer.domain.ports import Clock, Tracer
from keybearer.verification.cache import Cache, Entry
from keybearer.verification.finder import KEYS, Finder, Grants
from keybearer.verification.foreign import Schemes
from keybearer.verification.lease import AnyLease
from keybearer.verification.limiter import Limiter
from keybearer.verification.metering import Metering
from keybearer.verification.presented import Headers, Places, Presented, read
from keybearer.verification.quota import Left, Quota
from keybearer.verification.shared import SharedLimiter
from keybearer.verification.usage import ACCEPTED, Usage, Uses

NO_NEEDS: frozenset[str] = frozenset()
_GUARDED: frozenset[Kind] = frozenset({"key", "session", "access"})


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
        self._ring = ring
        self._clock = clock
        # The cache's index needs no pepper: a key that only this process knows, and a hash that
        # costs a quarter of OpenSSL's HMAC. 128 bits: nobody can compute one, let alone search.
        self._index = blake2b(key=os.urandom(32), digest_size=16)
        self._cookie = cookie.encode()
        self._tracer = tracer
        self._finder = Finder(
            cache=cache,
            lease=lease,
            clock=clock,
            grants=grants,
            usage=usage,
            prefixes=tuple(prefix.encode() for prefix in prefixes),
            schemes=schemes,
            readable=readable,
        )
        self._metering = Metering(limiter=limiter, quota=quota, shared=shared)
        self._take_alone = self._metering.take_alone

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
        if kind not in accept or (presented.via == "header" and kind not in KEYS):
            return _misplaced(grant, presented)
        refusal = judge(grant, needed, ip, now)
        if refusal is None and charge:
            if grant.limit is not None:
                if self._shared is not None:
                    return None
                refusal = self._take_alone(grant, grant.limit, now, 1)
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
        if kind not in accept or (presented.via == "header" and kind not in KEYS):
            return _misplaced(grant, presented)
        refusal = judge(grant, needed, ip, now)
        left: Left | None = None
        if refusal is None and charge:
            if grant.metered or (grant.limit is not None and self._shared is not None):
                left, refusal = await self._metering.take(grant, now, charge)
            elif grant.limit is not None:
                refusal = self._take_alone(grant, grant.limit, now, charge)
        if refusal is not None:
            entry.tally.refuse(now, refusal.code, ip, presented.user_agent)
            return refusal
        if charge or session.session_id is not None:
            # Whoever looks at the own keys uses the login, though it costs nothing.
            entry.uses.accept(now, ip, presented.user_agent)
        return Verified(entry, left)

    async def seen(self, presented: Presented) -> Entry | Refusal:
        """What a credential is: neither judged nor counted. For `check`, at once.

        Raises:
            Unavailable: a dependency is lost.
        """
        now = self._clock.now()
        hashed = self._index.copy()
        hashed.update(presented.credential)
        digest = hashed.digest()
        entry = self.cache.get(digest) if now < self.lease.until else None
        if entry is not None and (now < entry.fresh_until or self.lease.stretched):
            return entry
        kind = self._finder.kind(presented.credential)
        found = await self._finder.find(digest, presented, kind)
        self.misses += isinstance(found, Entry)
        return found

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
        kind = self._finder.kind(presented.credential)
        with self._tracer.span("keybearer.verify") as span:
            span.tell(kind=kind or "none")
            verdict: Verified | Refusal | Entry = await self._finder.find(digest, presented, kind)
            if isinstance(verdict, Entry):
                self.misses += 1  # not those that are not ours: nobody shall drown the figures
                verdict = await self.check(
                    presented, ip, needed, accept=accept, charge=charge, entry=verdict
                )
            span.tell(outcome=verdict.code if isinstance(verdict, Refusal) else ACCEPTED)
            return verdict


def _misplaced(grant: Grant, presented: Presented) -> Refusal:
    """A good credential at a place that is not for its kind."""
    if grant.kind == "key":
        return Refusal(code="SESSION_REQUIRED", id=grant.id)
    return Refusal(code="INVALID_API_KEY" if presented.via == "header" else "INVALID_ACCESS_TOKEN")


def _percent_decoded(value: bytes) -> str:
    return unquote_to_bytes(value).decode("latin-1")
