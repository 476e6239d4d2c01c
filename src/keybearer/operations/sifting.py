"""What of a batch is new, what is here already, and what cannot come.

An id alone is no proof: another database counts from 1 as well. What came before and is gone was
deleted here, and stays so.
"""

from collections.abc import Collection, Sequence
from typing import TypeVar

from keybearer.adapters.sql import arrivals
from keybearer.domain.arrivals import ArrivingKey, ArrivingLogin, Broken, Ending, Sort
from keybearer.domain.model import User
from keybearer.domain.ports import Transaction

Arrival = User | ArrivingKey | ArrivingLogin
A = TypeVar("A", User, ArrivingKey, ArrivingLogin)

GONE = "it was here, and was deleted"
ADDRESS_TAKEN = "the address is another user's here"


class Sieve:
    """One batch of what an origin has, and what becomes of each.

    Args:
        origin: where it comes from.
        now: the instant by which something is over.
        replaces: whether whoever has an address without having proven it makes room.

    Attributes:
        present: what is here already.
        broken: what cannot come.
        ended: what is here, and was ended there.
    """

    def __init__(self, tx: Transaction, origin: str, *, now: int, replaces: bool) -> None:
        self.present: set[tuple[Sort, str]] = set()
        self.broken: list[Broken] = []
        self.ended: list[tuple[Sort, str, Ending, int | None]] = []
        self._tx = tx
        self._origin = origin
        self._now = now
        self._replaces = replaces

    async def users(self, users: Sequence[User]) -> Sequence[User]:
        """Those who are new."""
        if not users:
            return []
        ids = [user.id for user in users]
        there = await arrivals.users_there(self._tx, ids, [user.email for user in users])
        came = await arrivals.came(self._tx, self._origin, "user", ids)
        taken = {each.email: each for each in there.values()}
        new = []
        for user in users:
            here, other = there.get(user.id), taken.get(user.email)
            if here is not None and here.is_same(user, came=user.id in came):
                self._is_here("user", user.id, here.ended(user), None)
            elif here is not None:
                self._breaks("user", user.id, "that id is another user's here")
            elif user.id in came:
                self._breaks("user", user.id, GONE)
            elif other is not None and not (self._replaces and other.squats):
                unproven = "" if other.verified else ", who has not proven it"
                self._breaks("user", user.id, ADDRESS_TAKEN + unproven)
            else:
                new.append(user)
        return new

    async def keys(self, keys: Sequence[ArrivingKey]) -> Sequence[ArrivingKey]:
        """Those that are new."""
        if not keys:
            return []
        ids = [each.key.id for each in keys]
        digests = [secret.digest for each in keys for secret in each.secrets]
        there, taken = await arrivals.keys_there(self._tx, ids, digests)
        came = await arrivals.came(self._tx, self._origin, "key", ids)
        new = []
        for each in keys:
            id, here = each.key.id, there.get(each.key.id)
            holders = {taken[s.digest] for s in each.secrets if s.digest in taken}
            if here is not None and here.is_same(each, found=id in holders):
                self._is_here("key", id, here.ended(each.key, self._now), each.key.expires_at)
            elif here is not None:
                self._breaks("key", id, "that id is another key's here")
            elif holders:
                self._breaks("key", id, "another key here has the same secret")
            elif id in came:
                self._breaks("key", id, GONE)
            else:
                new.append(each)
        return new

    async def logins(self, logins: Sequence[ArrivingLogin]) -> Sequence[ArrivingLogin]:
        """Those that are new."""
        if not logins:
            return []
        ids = [each.login.id for each in logins]
        there, taken = await arrivals.logins_there(self._tx, ids, [each.digest for each in logins])
        came = await arrivals.came(self._tx, self._origin, "session", ids)
        new = []
        for each in logins:
            id, holder = each.login.id, taken.get(each.digest)
            same = (each.login.user_id, each.login.created_at)
            if id in there and (holder == id or there[id] == same):
                self._is_here("session", id, None, None)
            elif id in there:
                self._breaks("session", id, "that id is another session's here")
            elif holder is not None:
                self._breaks("session", id, "another session here has the same token")
            elif id in came:
                self._breaks("session", id, GONE)
            else:
                new.append(each)
        return new

    def are_late(self, users: Collection[User]) -> None:
        """Notes those whose address somebody took while they were written."""
        for user in users:
            self._breaks("user", user.id, ADDRESS_TAKEN)

    def _is_here(self, sort: Sort, id: str, ending: Ending | None, expires: int | None) -> None:
        self.present.add((sort, id))
        if ending is not None:
            self.ended.append((sort, id, ending, expires))

    def _breaks(self, sort: Sort, id: str, reason: str) -> None:
        self.broken.append(Broken(sort=sort, id=id, reason=reason))


def names(arrival: Arrival) -> tuple[Sort, str, str]:
    """What it is, its id, and whose it is."""
    if isinstance(arrival, User):
        return "user", arrival.id, arrival.id
    if isinstance(arrival, ArrivingKey):
        return "key", arrival.key.id, arrival.key.owner_id
    return "session", arrival.login.id, arrival.login.user_id
