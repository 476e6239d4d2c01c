"""What a credential is, where the cache has no answer: one read for all who ask at once.

looks like     a key, a service token, an access token, a session token, or nothing of ours
the lease      is held, so that what is read may be kept
one flight     for each credential; one that began before an invalidation is no answer
               to a request after it
imported keys  look like nothing of ours, or like a session; they are asked for where there are any
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

from keybearer.domain.credentials import REFRESH_PREFIX, SERVICE_PREFIX, well_formed
from keybearer.domain.foreign import NO_SCHEMES, Scheme
from keybearer.domain.model import Grant, Kind, Refusal
from keybearer.domain.ports import Clock
from keybearer.verification import patience
from keybearer.verification.cache import Cache, Entry, fresh_until
from keybearer.verification.foreign import Schemes
from keybearer.verification.lease import AnyLease
from keybearer.verification.presented import Presented
from keybearer.verification.usage import SecretTally, Usage

KEYS: frozenset[Kind] = frozenset({"key", "service"})
"""What may stand in `X-API-Key`."""

_NEVER_ELSEWHERE: frozenset[Kind | None] = frozenset({"service", "access"})
"""What no key looks like that was made elsewhere; one with two dots does so in its own header."""

_OURS_ALONE = (SERVICE_PREFIX.encode(), REFRESH_PREFIX.encode())

_Flight = asyncio.Task[Entry | Refusal | None]


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


class Finder:
    """Reads what the cache does not have, and puts it there.

    Args:
        prefixes: the prefixes that our API keys may have.
        schemes: which keys made elsewhere there are; without, none.
        readable: whether a text with one of the prefixes can be a key at all.
    """

    def __init__(
        self,
        *,
        cache: Cache,
        lease: AnyLease,
        clock: Clock,
        grants: Grants,
        usage: Usage,
        prefixes: tuple[bytes, ...],
        schemes: Schemes | None,
        readable: Callable[[bytes], bool] | None,
    ) -> None:
        self._cache = cache
        self._lease = lease
        self._clock = clock
        self._grants = grants
        self._usage = usage
        self._prefixes = prefixes
        self._schemes = schemes
        self._readable = readable or (lambda credential: well_formed(credential, prefixes))
        self._flights: dict[tuple[bytes, Kind | None], tuple[int, _Flight]] = {}

    def kind(self, credential: bytes) -> Kind | None:
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

    async def find(self, digest: bytes, presented: Presented, kind: Kind | None) -> Entry | Refusal:
        """The entry of a credential that looks like `kind`, kept for those who ask next.

        Raises:
            Unavailable: a dependency is lost.
        """
        credential = presented.credential
        if presented.via == "header" and kind not in KEYS:
            kind = None
        elsewhere = self._may_be_elsewhere(kind, presented)
        if kind is None and not elsewhere:
            return self._refused(presented)
        await self._lease.hold()
        begun = self._cache.generation
        kept = self._cache.get(digest)
        if kept is not None and (self._clock.now() < kept.fresh_until or self._lease.stretched):
            return kept  # only the lease was over: what it goes by is what it was
        place = digest, kind
        flight = self._flights.get(place)
        if flight is None or flight[0] != begun:
            # A read that began before an invalidation is no answer to a request after it.
            task = patience.begin(self._load(kind, digest, credential, begun, elsewhere=elsewhere))
            flight = (begun, task)
            self._flights[place] = flight
            task.add_done_callback(lambda done: self._landed(place, done))
        return await patience.in_time(flight[1]) or self._refused(presented)

    def _may_be_elsewhere(self, kind: Kind | None, presented: Presented) -> bool:
        """Whether what is presented may be a key that was imported; asks no database."""
        if self._schemes is None or presented.via == "cookie" or kind in _NEVER_ELSEWHERE:
            return False
        if kind == "key" and well_formed(presented.credential, self._prefixes):
            return False  # it has our checksum; what the app's own generator made has none
        if presented.credential.startswith(_OURS_ALONE):
            return False
        if self._clock.now() >= self._lease.until:
            return True  # to be found out under the lease
        known = self._schemes.known
        return known is None or bool(known)

    def _refused(self, presented: Presented) -> Refusal:
        as_key = presented.via == "header" or presented.credential.startswith(self._prefixes)
        return Refusal(code="INVALID_API_KEY" if as_key else "INVALID_ACCESS_TOKEN")

    def _landed(self, place: tuple[bytes, Kind | None], task: _Flight) -> None:
        flight = self._flights.get(place)
        if flight is not None and flight[1] is task:
            del self._flights[place]

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
        tally = self._usage.tally(session.session_id or session.id, is_key=session.kind == "key")
        entry = Entry(
            grant=grant,
            session=session,
            tally=tally,
            uses=tally if of_secret is None else SecretTally(tally, of_secret),
            fresh_until=fresh_until(self._clock.now()),
            written=tally.written,
        )
        self._cache.put(digest, entry, begun=begun)
        return entry
