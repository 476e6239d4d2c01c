"""Which schemes of keys made elsewhere the database has, as this process knows it."""

from keybearer.adapters.sql import foreign
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
