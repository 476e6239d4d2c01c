"""The keys that sign and check access tokens, as this process knows them."""

from collections.abc import Awaitable, Callable, Mapping, Sequence

from keybearer.adapters.sql import signing as sql
from keybearer.domain import jwt
from keybearer.domain.credentials import PepperRing
from keybearer.domain.errors import Unavailable
from keybearer.domain.jwt import SigningKey
from keybearer.domain.ports import Clock, Database, Transaction

Note = Callable[[Transaction, str], Awaitable[None]]

_FRESH_MS = 30_000
_UNKNOWN_PAUSE_MS = 2_000


class SigningKeys:
    """Signing keys out of the database, kept for half a minute.

    Args:
        interval_ms: how long a key signs until its successor does.
        token_ttl_ms: the longest life of an access token: an old key stays that much longer.
        new_kid: makes an id for a new key.
    """

    def __init__(
        self,
        *,
        database: Database,
        ring: PepperRing,
        clock: Clock,
        interval_ms: int,
        token_ttl_ms: int,
        new_kid: Callable[[int], str],
    ) -> None:
        self._database = database
        self._ring = ring
        self._clock = clock
        self._interval_ms = interval_ms
        self._token_ttl_ms = token_ttl_ms
        self._new_kid = new_kid
        self._keys: dict[str, SigningKey] = {}
        self._read_at: int | None = None
        self._begun = 0
        self._kept = 0

    async def known(self, kid: str | None = None) -> Mapping[str, SigningKey]:
        """Every key that is not retired, by kid.

        Args:
            kid: the one that is wanted: when we lack it the database is asked again, but not
                more often than every two seconds, whoever asks. A successor is known long before
                it signs; the first key is not, so where we know none we always ask.

        Raises:
            Unavailable: the database is lost.
            SealBroken: no SECRET of ours opens a key.
        """
        now = self._clock.now()
        pause = _FRESH_MS if kid is None or kid in self._keys else _UNKNOWN_PAUSE_MS
        first = kid is not None and not self._keys
        if self._read_at is None or first or now - self._read_at >= pause:
            await self._read(now)
        return {key.kid: key for key in jwt.publishable(self._keys.values(), now)}

    async def signer(self) -> SigningKey:
        """The key that signs now; the first one is made when there is none.

        Raises:
            Unavailable: the database is lost, or the node that made the first key is ahead of us.
        """
        keys = await self.known()
        key = jwt.current(keys.values(), self._clock.now())
        if key is None:
            await self.rotate(only_when_due=True)
            keys = await self.known()
            key = jwt.current(keys.values(), self._clock.now())
        if key is None:
            raise Unavailable("no signing key is active yet: the clocks of two nodes differ")
        return key

    async def published(self) -> tuple[SigningKey, ...]:
        """The keys of the JWKS, newest first; never empty."""
        await self.signer()
        return jwt.publishable(self._keys.values(), self._clock.now())

    async def rotate_when_due(self, note: Note | None = None) -> str | None:
        """Makes the next key when its time has come, and gives its kid."""
        keys = await self.known()
        if not keys or not jwt.due(keys.values(), self._clock.now(), self._interval_ms):
            return None
        return await self.rotate(note, only_when_due=True)

    async def rotate(self, note: Note | None = None, *, only_when_due: bool = False) -> str | None:
        """Makes a successor, which signs once everyone knows it; gives its kid.

        Two processes that come at once make one key: the second sees the first one's.

        Args:
            note: tells of the new key, by its kid, in the same transaction.
        """
        now = self._clock.now()

        async def body(tx: Transaction) -> str | None:
            await sql.lock(tx)
            keys = self._opened(await sql.every(tx))
            live = jwt.publishable(keys, now)
            if only_when_due and not jwt.due(live, now, self._interval_ms):
                return None
            made = jwt.generate(self._new_kid(now), now, first=not live)
            secret = self._ring.newest.signing_secret
            await sql.add(
                tx,
                sql.SealedKey(
                    kid=made.kid,
                    sealed=jwt.seal(secret, made.to_jwk(private=True)),
                    created_at=made.created_at,
                    activates_at=made.activates_at,
                    retires_at=None,
                ),
            )
            for key in live:
                ended = jwt.succeeded(key, made, token_ttl_ms=self._token_ttl_ms)
                await sql.retire(tx, key.kid, at=ended.retires_at)
            await sql.forget_retired(tx, before=now)
            if note is not None:
                await note(tx, made.kid)
            return made.kid

        kid = await self._database.write(body)
        self._read_at = None
        return kid

    async def _read(self, now: int) -> None:
        self._begun += 1
        begun = self._begun
        rows = await self._database.read(sql.every)
        keys = {key.kid: key for key in self._opened(rows)}
        if begun > self._kept:  # what an older read found replaces nothing that a newer one did
            self._kept, self._keys, self._read_at = begun, keys, now
        await self._reseal(rows, keys)

    def _opened(self, rows: Sequence[sql.SealedKey]) -> list[SigningKey]:
        secrets = [pepper.signing_secret for pepper in self._ring.peppers]
        return [
            SigningKey.from_jwk(
                jwt.unseal(secrets, row.sealed),
                created_at=row.created_at,
                activates_at=row.activates_at,
                retires_at=row.retires_at,
            )
            for row in rows
        ]

    async def _reseal(self, rows: Sequence[sql.SealedKey], keys: Mapping[str, SigningKey]) -> None:
        """Moves keys to the newest secret, so that the old one can be taken off the list."""
        newest = self._ring.newest.signing_secret
        for row in rows:
            sealed = jwt.seal(newest, keys[row.kid].to_jwk(private=True))
            # A seal is deterministic: another text means another secret.
            if sealed != row.sealed:
                kid = row.kid

                async def body(tx: Transaction, kid: str = kid, sealed: str = sealed) -> None:
                    await sql.reseal(tx, kid, sealed)

                await self._database.write(body)
