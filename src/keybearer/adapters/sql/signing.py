"""Signing keys, sealed."""

from collections.abc import Sequence

import msgspec
from sqlalchemy import bindparam, delete, insert, select, update

from keybearer.adapters.sql.tables import coherence, signing_keys
from keybearer.domain.ports import Row, Transaction


class SealedKey(msgspec.Struct, frozen=True, kw_only=True):
    """A signing key as it is stored; the private half is sealed (domain/jwt.py)."""

    kid: str
    sealed: str
    created_at: int
    activates_at: int
    retires_at: int | None

    def __repr__(self) -> str:
        return f"SealedKey({self.kid!r})"


_ALL = select(signing_keys).order_by(signing_keys.c.created_at, signing_keys.c.kid)
_INSERT = insert(signing_keys)
_RETIRE = (
    update(signing_keys)
    .where(signing_keys.c.kid == bindparam("of_kid"), signing_keys.c.retires_at.is_(None))
    .values(retires_at=bindparam("at"))
)
_RESEAL = (
    update(signing_keys)
    .where(signing_keys.c.kid == bindparam("of_kid"))
    .values(sealed=bindparam("anew"))
)
_FORGET = delete(signing_keys).where(signing_keys.c.retires_at < bindparam("before"))
_LOCK = select(coherence.c.id).where(coherence.c.id == 1).with_for_update()


async def every(tx: Transaction) -> Sequence[SealedKey]:
    """All of them, oldest first."""
    return [_sealed(row) for row in await tx.all(_ALL)]


async def lock(tx: Transaction) -> None:
    """Makes two processes that want to make a key go one after the other."""
    await tx.one(_LOCK)


async def add(tx: Transaction, key: SealedKey) -> None:
    """Writes a new key."""
    await tx.run(_INSERT, **msgspec.structs.asdict(key))


async def retire(tx: Transaction, kid: str, *, at: int | None) -> None:
    """Says when a key ends, unless that is said already."""
    await tx.run(_RETIRE, of_kid=kid, at=at)


async def reseal(tx: Transaction, kid: str, sealed: str) -> None:
    """Stores a key under another secret."""
    await tx.run(_RESEAL, of_kid=kid, anew=sealed)


async def forget_retired(tx: Transaction, *, before: int) -> None:
    """Deletes keys that ended before an instant."""
    await tx.run(_FORGET, before=before)


def _sealed(row: Row) -> SealedKey:
    return SealedKey(**{name: getattr(row, name) for name in SealedKey.__struct_fields__})
