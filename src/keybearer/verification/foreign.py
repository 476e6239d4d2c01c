"""Keys made elsewhere: which schemes there are, and slow hashes a few at a time."""

import asyncio
from collections.abc import Awaitable, Callable
from hashlib import blake2b
from operator import itemgetter

from keybearer.adapters.sql import foreign
from keybearer.domain.errors import Unavailable
from keybearer.domain.foreign import TAG, Scheme
from keybearer.domain.ports import Database
from keybearer.verification.cache import Cache

WAITING = 4
"""Credentials that wait for the hash of one key."""
REMEMBERED = 4_096
"""Credentials that were told to come again, and those that were refused."""


class Schemes:
    """The schemes, read once and good until the cache hears of a new one.

    Known as long as a cached grant may be believed: under the lease, and until the change that
    brings another scheme is told. So whatever is no key of ours is refused without a look-up
    where nothing was imported, and is found at once where something was.
    """

    def __init__(self, database: Database, cache: Cache) -> None:
        self._database = database
        self._cache = cache
        self._schemes: frozenset[Scheme] = frozenset()
        self._begun = -1

    @property
    def known(self) -> frozenset[Scheme] | None:
        """What was read and still holds, under the lease; None where it must be read."""
        if self._begun < 0 or not self._cache.untouched((TAG,), since=self._begun):
            return None
        return self._schemes

    async def read(self) -> frozenset[Scheme]:
        """The schemes; of the database, where they are not known.

        Raises:
            Unavailable: the database is lost.
        """
        known = self.known
        if known is None:
            begun = self._cache.generation
            known = await self._database.read(foreign.schemes)
            self._schemes, self._begun = known, begun
        return known


class SlowHashes:
    """Checks of keys that a slow hash decides: one at once for each key, the others in turn.

    In a small pool of their own: whoever knows the name of such a key and makes secrets up keeps
    one thread busy, and neither those who log in nor those who carry another key. Nor the holder
    of that key: who has asked first has the next turn, and whoever was told to come again keeps
    that place. What was refused is known from then on, and costs no hash again. So those who make
    up secrets after the holder has asked are behind the holder, however many they are.

    Args:
        check: whether a credential is the one that was hashed; slow.
    """

    def __init__(self, check: Callable[[str, bytes], Awaitable[bool]]) -> None:
        self._check = check
        self._lines: dict[str, list[tuple[int, asyncio.Future[None]]]] = {}
        self._first_asked: dict[bytes, int] = {}
        self._refused: dict[bytes, int] = {}
        self._asked = 0

    async def holds(self, key_id: str, hashed: str, hashed_part: bytes) -> bool:
        """Whether what is presented is what was hashed.

        Raises:
            Unavailable: others have asked before, or too many ask for other keys.
        """
        mark = blake2b(hashed_part, key=blake2b(hashed.encode()).digest(), digest_size=16).digest()
        if mark in self._refused:
            return False
        await self._turn(key_id, mark)
        try:
            right = await self._check(hashed, hashed_part)
        finally:
            self._give_turn(key_id)
        self._first_asked.pop(mark, None)
        if not right:
            _keep(self._refused, mark, 0)
        return right

    async def _turn(self, key_id: str, mark: bytes) -> None:
        self._asked += 1
        place = self._first_asked.get(mark, self._asked)
        if place == self._asked:
            _keep(self._first_asked, mark, place)
        line = self._lines.get(key_id)
        if line is None:
            self._lines[key_id] = []
            return
        turn = asyncio.get_running_loop().create_future()
        line.append((place, turn))
        line.sort(key=itemgetter(0))
        if len(line) > WAITING:
            line.pop()[1].set_exception(Unavailable("others wait for a slow hash of that key"))
        await turn

    def _give_turn(self, key_id: str) -> None:
        line = self._lines[key_id]
        while line:
            turn = line.pop(0)[1]
            if not turn.done():  # else whoever waited is gone
                turn.set_result(None)
                return
        del self._lines[key_id]


def _keep(among: dict[bytes, int], mark: bytes, value: int) -> None:
    """Keeps one more, and no more than REMEMBERED: the first goes."""
    among[mark] = value
    if len(among) > REMEMBERED:
        del among[next(iter(among))]
