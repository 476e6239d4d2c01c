"""Whose key it is: a caller speaks of its own, the operator of anyone's."""

from keybearer.adapters.sql import keys as sql
from keybearer.domain.errors import Failure
from keybearer.domain.model import Key
from keybearer.domain.ports import Transaction
from keybearer.operations.declaration import Call


async def own_key(call: Call, tx: Transaction, id: str, *, lock: bool = False) -> Key:
    """A key that the caller may speak of: the caller's own, or anyone's for the operator.

    Somebody else's key answers exactly as one that does not exist.

    Raises:
        Failure: KEY_NOT_FOUND.
    """
    key = await sql.by_id(tx, id, now=call.now, lock=lock)
    session = call.session
    if key is None or call.speaks_for not in (None, key.owner_id):
        raise Failure("KEY_NOT_FOUND")
    if session.kind == "key" and key.id != session.id:
        raise Failure("KEY_NOT_FOUND")
    return key


def named(call: Call, id: str | None) -> str:
    """The id that was given, or the caller's own where a key speaks of itself."""
    if id is not None:
        return id
    if call.session.kind == "key":
        return call.session.id
    raise Failure("VALIDATION_ERROR", "Name the key by its id.")
