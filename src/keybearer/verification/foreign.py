"""Keys made elsewhere: which schemes there are, and slow hashes a few at a time."""

from collections.abc import Awaitable, Callable

from keybearer.adapters.sql import foreign
from keybearer.domain.errors import Unavailable
from keybearer.domain.foreign import TAG, Scheme
from keybearer.domain.ports import Database
from keybearer.verification.cache import Cache


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
    """Checks of keys that a slow hash decides: a few at once, and one for each key.

    In a small pool of their own: whoever knows the name of such a key and makes secrets up keeps
    one thread busy, and neither those who log in nor those who carry another key. What does not
    fit is told to come again; it is answered neither yes nor no.

    Args:
        check: whether a credential is the one that was hashed; slow.
    """

    def __init__(self, check: Callable[[str, bytes], Awaitable[bool]]) -> None:
        self._check = check
        self._under_way: set[str] = set()

    async def holds(self, key_id: str, hashed: str, hashed_part: bytes) -> bool:
        """Whether what is presented is what was hashed.

        Raises:
            Unavailable: another one is checked for this key, or too many for others.
        """
        if key_id in self._under_way:
            raise Unavailable("the hash of that key is being checked")
        self._under_way.add(key_id)
        try:
            return await self._check(hashed, hashed_part)
        finally:
            self._under_way.discard(key_id)
