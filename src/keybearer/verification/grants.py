"""What the database says of a credential, as a grant."""

from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache

from msgspec.structs import replace

from keybearer.adapters.sql import accounts, keys, keysecrets, service_tokens, sessions
from keybearer.domain.credentials import PepperRing, service_token_hash
from keybearer.domain.foreign import Scheme, hashed_part, names
from keybearer.domain.model import (
    ORGANIZATION,
    Grant,
    Key,
    OwnerState,
    RateLimit,
    Refusal,
    Role,
    Session,
    bars_of,
    pack,
)
from keybearer.domain.networks import compile_allow_list
from keybearer.domain.ports import Clock, Database, Reading, Row, Transaction
from keybearer.verification.foreign import SlowHashes
from keybearer.verification.limiter import Limiter
from keybearer.verification.owners import Holds, owner_state


class StoredGrants:
    """Grants from the database.

    Args:
        look_ups: what reads them.
        accounts: whether owners are our users; else they are opaque ids and always active.
        must_verify: whether unverified users' credentials are refused.
        hashes: service tokens that the settings list.
        access: reads an access token.
        slow: checks keys that a slow hash decides.
        pepper: of keyshield, where keys of it were imported.
    """

    def __init__(
        self,
        *,
        look_ups: Reading,
        database: Database,
        clock: Clock,
        ring: PepperRing,
        limiter: Limiter,
        holds: Holds,
        accounts: bool,
        must_verify: bool,
        hashes: Sequence[str],
        access: Callable[[bytes], Awaitable[Grant | Refusal]],
        slow: SlowHashes,
        pepper: str = "",
    ) -> None:
        self._look_ups = look_ups
        self._database = database
        self._clock = clock
        self._ring = ring
        self._limiter = limiter
        self._holds = holds
        self._accounts = accounts
        self._must_verify = must_verify
        self._hashes = frozenset(hashes)
        self._access = access
        self._slow = slow
        self._pepper = pepper

    async def key(self, credential: bytes) -> Grant | None:
        """The grant of an API key, found by the digest of the whole key."""
        return await self._by_digest(credential, self._ring.digests(credential), ours=True)

    async def foreign(self, credential: bytes, schemes: frozenset[Scheme]) -> Grant | None:
        """The grant of a key that was made elsewhere: by our digest of it, or by its own."""
        digests = [*self._ring.digests(credential), *names(credential, schemes)]
        return await self._by_digest(credential, digests, ours=False)

    async def _by_digest(
        self, credential: bytes, digests: Sequence[bytes], *, ours: bool
    ) -> Grant | None:
        """The key that has one of the digests, which is moved to the first of them.

        Args:
            ours: whether it has our form. What has not is no key that we made: it was refused
                before, as one whose prefix is no longer ours.
        """

        async def body(tx: Transaction) -> tuple[Key, Row] | None:
            return await keys.by_digest(tx, digests, now=self._clock.now())

        found = await self._look_ups.read(body)
        if found is None:
            return None
        key, row = found
        if row.scheme is None and not ours:
            return None
        if row.foreign_hash is not None:
            if _dead(key, row, self._clock.now()):
                return None  # to its holder too: nobody has proved to be that, and no hash is due
            part = hashed_part(credential, row.pepper_id, row.foreign_hash, self._pepper)
            if not await self._slow.holds(key.id, row.foreign_hash, part):
                return None
        if bytes(row.digest) != digests[0]:
            await self._redigest(bytes(row.digest), digests[0])
        role: Role = row.role or "user"
        held = await self._holds(key.owner_id, role)
        granted = key.permissions or frozenset()
        limit = None
        if key.rate_limit_max is not None and key.rate_limit_window_ms is not None:
            limit = _limit(key.rate_limit_max, key.rate_limit_window_ms)
            if row.limit_state is not None:
                self._limiter.restore(key.id, limit, bytes(row.limit_state))
        return Grant(
            session=Session(
                subject=_owner(key.owner_id),
                kind="key",
                id=key.id,
                permissions=_shared(granted if held is None else granted & held),
                role=role,
                name=key.name,
                expires_at=key.expires_at,
                replaced=row.usable_until is not None,
            ),
            bars=bars_of(
                usable_until=row.usable_until,
                enabled=key.enabled,
                revoked_at=key.revoked_at,
                owner_state=self._state_of(key, row),
                allow=compile_allow_list(key.ip_allow) if key.ip_allow else None,
            ),
            secret_digest=None if key.rotating_until is None else digests[0],
            limit=limit if key.rate_limit_enabled else None,
            metered=key.remaining is not None,
            packed=pack(key),
        )

    async def session(self, token: bytes) -> Grant | None:
        """The grant of a session token, bare or with the signature of a cookie."""
        bare: str | None = token.decode("latin-1")
        if b"." in token:
            bare = self._ring.unsign(token.decode("latin-1"))
        if bare is None:
            return None
        digests = self._ring.digests(bare.encode("latin-1", "replace"))

        async def body(tx: Transaction) -> Grant | None:
            login = await sessions.by_token_digest(tx, digests)
            if login is None:
                return None
            user = await accounts.user_by_id(tx, login.user_id)
            now = self._clock.now()
            ends_at = login.ends_at
            if now < ends_at:
                # Whoever presents it uses it: the cached grant must not end by the idle time of
                # before, which that use has moved.
                ends_at = min(login.expires_at, now + login.idle_ms)
            return Grant(
                session=Session(
                    subject=login.user_id,
                    kind="session",
                    id=login.id,
                    role="user" if user is None else user.role,
                    session_id=login.id,
                    expires_at=ends_at,
                    authenticated_at=login.authenticated_at,
                ),
                bars=bars_of(
                    revoked_at=login.ended_at,
                    owner_state=owner_state(user, must_verify=self._must_verify),
                ),
            )

        grant = await self._look_ups.read(body)
        return None if grant is None else await self._with_permissions(grant)

    async def service(self, token: bytes) -> Grant | None:
        """The grant of a service token: one of the settings, or one of the database."""
        hashed = service_token_hash(token)
        if hashed in self._hashes:
            return Grant(session=_service(hashed[:16], None))

        async def body(tx: Transaction) -> service_tokens.ServiceToken | None:
            return await service_tokens.by_hash(tx, hashed)

        found = await self._look_ups.read(body)
        if found is None:
            return None
        return Grant(
            session=_service(found.id, found.name), bars=bars_of(revoked_at=found.revoked_at)
        )

    async def access(self, token: bytes) -> Grant | Refusal:
        """The grant of an access token."""
        return await self._access(token)

    def _state_of(self, key: Key, row: Row) -> OwnerState:
        if not self._accounts or key.owner_id.startswith(ORGANIZATION):
            return "active"
        if row.user_id is None:
            return "gone"
        if row.disabled_at is not None:
            return "disabled"
        if self._must_verify and row.email_verified_at is None:
            return "unverified"
        return "active"

    async def _with_permissions(self, grant: Grant) -> Grant:
        session = grant.session
        held = await self._holds(session.subject, session.role)
        return replace(grant, session=replace(session, permissions=held))

    async def _redigest(self, old: bytes, new: bytes) -> None:
        async def body(tx: Transaction) -> None:
            await keysecrets.redigest(tx, old=old, new=new, pepper_id=self._ring.newest.id)

        await self._database.write(body)


def _dead(key: Key, row: Row, now: int) -> bool:
    """Whether a key opens nothing, whoever holds it."""
    ended = row.usable_until is not None and now >= row.usable_until
    return ended or key.status(now) in ("revoked", "expired", "disabled")


def _service(id: str, name: str | None) -> Session:
    return Session(subject="service", kind="service", id=id, name=name)


# What many keys have alike is one value in memory.


@lru_cache(maxsize=1_024)
def _limit(maximum: int, window_ms: int) -> RateLimit:
    return RateLimit(maximum=maximum, window_ms=window_ms)


@lru_cache(maxsize=1_024)
def _owner(id: str) -> str:
    return id


@lru_cache(maxsize=1_024)
def _shared(permissions: frozenset[str]) -> frozenset[str]:
    return permissions
