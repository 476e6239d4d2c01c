"""What was ended there and not here: told, or ended here by the ordinary operations."""

from collections.abc import Sequence
from functools import partial

from keybearer.adapters.sql import accounts, arrivals
from keybearer.domain.arrivals import Ending, Sort
from keybearer.domain.errors import Failure
from keybearer.domain.instants import iso
from keybearer.domain.model import User
from keybearer.domain.ports import Transaction
from keybearer.operations import people
from keybearer.operations.declaration import Call, Output
from keybearer.operations.keyedits import UpdateKey, update_api_key
from keybearer.operations.keyends import RevokeKey, revoke_api_key
from keybearer.operations.users import remove_user


class Ended(Output, frozen=True, kw_only=True):
    """What is here, and was ended there; `carried` says whether it is ended here by now."""

    kind: Sort
    id: str
    what: Ending
    carried: bool


async def carry(
    call: Call, found: Sequence[tuple[Sort, str, Ending, int | None]], *, wanted: bool
) -> list[Ended]:
    """Ends here what was ended there, if that is wanted, and tells of each.

    Raises:
        Unavailable: REVOCATION_PENDING, as `App.change`.
    """
    told = []
    for sort, id, what, expires in found:
        carried = wanted and await _carry(call, sort, id, what, expires)
        told.append(Ended(kind=sort, id=id, what=what, carried=carried))
    return told


async def _carry(call: Call, sort: Sort, id: str, what: Ending, expires: int | None) -> bool:
    try:
        if sort == "user":
            await people.disable(call, id)
        elif what == "revoked":
            await revoke_api_key(call, RevokeKey(key_id=id, reason="revoked where it came from"))
        elif what == "expires sooner" and expires is not None:
            await update_api_key(call, UpdateKey(key_id=id, expires_at=iso(expires)))
        else:
            await update_api_key(call, UpdateKey(key_id=id, enabled=False))
    except Failure:  # it was deleted meanwhile, or the rules for keys do not allow that expiry
        return False
    return True


async def make_room(call: Call, origin: str, users: Sequence[User]) -> None:
    """Deletes the accounts that have an address of these, have not proven it and have no keys.

    Raises:
        Unavailable: REVOCATION_PENDING, as `App.change`.
    """
    ids, emails = [user.id for user in users], [user.email for user in users]
    there = await call.app.database.read(partial(arrivals.users_there, ids=ids, emails=emails))
    came = await call.app.database.read(partial(arrivals.came, origin=origin, sort="user", ids=ids))
    wanted = {user.email for user in users if user.id not in there and user.id not in came}
    for each in there.values():
        if each.email not in wanted or not each.squats:
            continue

        async def body(tx: Transaction, id: str = each.id) -> tuple[str, ...]:
            user = await accounts.user_by_id(tx, id, lock=True)
            now_there = await arrivals.users_there(tx, [id], [])
            if user is None or not now_there[id].squats:
                return ()
            return await remove_user(call, tx, user)

        await call.app.change(body, tuple)
    call.app.wake_mail()
