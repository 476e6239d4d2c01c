"""Write what arrives from elsewhere: each thing whole, once, with its event; or tell why not.

    rows ──▶ users, keys, logins ──▶ by chain of the trail ──▶ one transaction for up to 500
             or why one is broken                              what is there already: untouched

A transaction locks one chain first, so two imports of the same rows wait for each other, and the
second finds them there. Whoever is there is told by the id, which stays: apps keep it. A batch
with a row that the database does not take is halved until that row is alone. A dry run does the
same and takes it back.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence

from keybearer.adapters.sql import arrivals, audit, foreign
from keybearer.domain.arrivals import (
    ArrivingKey,
    ArrivingLogin,
    Broken,
    Ending,
    Sort,
    Unwritable,
)
from keybearer.domain.errors import Failure
from keybearer.domain.foreign import TAG, Scheme
from keybearer.domain.model import User
from keybearer.domain.ports import Transaction
from keybearer.domain.records import storable
from keybearer.operations.app import record, told
from keybearer.operations.declaration import Call, Output
from keybearer.operations.endings import Ended, carry, make_room
from keybearer.operations.sifting import Arrival, Sieve, names

BATCH = 500


class Count(Output, frozen=True, kw_only=True):
    """How many rows there were, and what became of them.

    `present` are those that were here before and stay as they are.
    """

    found: int = 0
    imported: int = 0
    present: int = 0
    skipped: int = 0


class Skipped(Output, frozen=True, kw_only=True):
    """A row that was not imported, and why."""

    kind: Sort
    id: str
    reason: str


class Note(Output, frozen=True, kw_only=True):
    """What could not be carried over, and of how many rows."""

    note: str
    count: int


class Report(Output, frozen=True, kw_only=True):
    """What an import did, or would do; `truncated` where the file has no end."""

    origin: str
    dry_run: bool
    truncated: bool = False
    users: Count
    keys: Count
    sessions: Count
    skipped: list[Skipped]
    notes: list[Note]
    ended: list[Ended]


class Moving:
    """One import, from its first row to its report.

    Args:
        origin: whose database it is, for the report and the trail.
        endings: whether what was ended there is ended here.
        replaces: whether an account that has not proven its address, and has no keys, makes room
            for whoever comes with it.

    Attributes:
        owners: the ids of users who are here, or will be.
        keys: the ids of keys that came, or were here before.
        truncated: whether more was to be read than there was.
    """

    def __init__(
        self,
        call: Call,
        origin: str,
        *,
        dry_run: bool,
        endings: bool = False,
        replaces: bool = False,
    ) -> None:
        if not call.trusted:
            raise Failure("ADMIN_REQUIRED")
        self.call = call
        self.owners: set[str] = set()
        self.keys: set[str] = set()
        self.truncated = False
        self._origin = origin
        self._dry_run = dry_run
        self._endings = endings
        self._replaces = replaces
        self._ended: list[tuple[Sort, str, Ending, int | None]] = []
        self._refused: set[str] = set()
        self._counts: Counter[tuple[Sort, str]] = Counter()
        self._skipped: list[Skipped] = []
        self._notes: Counter[str] = Counter()
        self._draft: list[str] = []
        self._waiting: defaultdict[int, list[Arrival]] = defaultdict(list)
        self._taken: set[tuple[Sort, str | bytes]] = set()
        self._schemes: set[Scheme] = set()

    def skip(self, sort: Sort, id: str, reason: str) -> None:
        """Notes a row that cannot come."""
        self._draft.clear()
        self._counts[sort, "found"] += 1
        self._skip(Broken(sort=sort, id=id, reason=reason))

    def note(self, text: str) -> None:
        """Notes what cannot be carried over of what arrives next."""
        self._draft.append(text)

    async def arrive(self, arrival: Arrival) -> None:
        """Something arrives; it is written with others, at the latest by `settle`."""
        sort, id, owner_id = names(arrival)
        self._counts[sort, "found"] += 1
        if sort != "user" and owner_id in self._refused:
            self._draft.clear()
            self._skip(Broken(sort=sort, id=id, reason="its owner did not come"))
            return
        self._notes.update(self._draft)
        self._draft.clear()
        for unique in _unique(arrival):
            if (sort, unique) in self._taken:
                self._skip(Broken(sort=sort, id=id, reason="another row says the same"))
                return
        self._taken.update((sort, unique) for unique in _unique(arrival))
        chain = audit.chain_of(owner_id)
        self._waiting[chain].append(arrival)
        if len(self._waiting[chain]) >= BATCH:
            await self._write(self._waiting.pop(chain))

    async def settle(self) -> None:
        """Writes all that waits; then `owners` has every user who came."""
        while self._waiting:
            await self._write(self._waiting.popitem()[1])

    async def learn(self, ids: Collection[str]) -> None:
        """Learns which of the ids are users' who were here before."""
        missing = set(filter(storable, ids)) - self.owners - self._refused
        if not missing:
            return
        self.owners |= await self.call.app.database.read(
            lambda tx: arrivals.known_users(tx, missing)
        )

    async def finish(self) -> Report:
        """Writes what still waits, and tells what became of everything."""
        await self.settle()
        users, keys, logins = self._count("user"), self._count("key"), self._count("session")
        if users.imported + keys.imported + logins.imported and not self._dry_run:

            async def body(tx: Transaction) -> None:
                await record(
                    self.call, tx, "import.finished", owner_id=None, origin=self._origin,
                    users=users.imported, keys=keys.imported, sessions=logins.imported,
                )  # fmt: skip

            await self.call.app.database.write(body)
        ended = await carry(self.call, self._ended, wanted=self._endings and not self._dry_run)
        return Report(
            origin=self._origin,
            dry_run=self._dry_run,
            truncated=self.truncated,
            users=users,
            keys=keys,
            sessions=logins,
            skipped=self._skipped,
            notes=[Note(note=text, count=n) for text, n in sorted(self._notes.items())],
            ended=ended,
        )

    def _count(self, sort: Sort) -> Count:
        return Count(**{name: self._counts[sort, name] for name in Count.__struct_fields__})

    def _skip(self, broken: Broken) -> None:
        if broken.sort == "user":
            self._refused.add(broken.id)
        self._counts[broken.sort, "skipped"] += 1
        self._skipped.append(Skipped(kind=broken.sort, id=broken.id, reason=broken.reason))

    # --- one batch: arrivals of one chain of the trail ---

    async def _write(self, batch: Sequence[Arrival]) -> None:
        users = [each for each in batch if isinstance(each, User)]
        keys = [each for each in batch if isinstance(each, ArrivingKey)]
        logins = [each for each in batch if isinstance(each, ArrivingLogin)]
        secrets = (secret for key in keys for secret in key.secrets)
        schemes = {each.scheme for each in secrets if each.scheme is not None} - self._schemes

        if self._replaces and not self._dry_run:
            await make_room(self.call, self._origin, users)

        async def body(tx: Transaction) -> Sieve:
            await audit.lock(tx, names(batch[0])[2])
            sieve = Sieve(tx, self._origin, now=self.call.now, replaces=self._replaces)
            new_users = await sieve.users(users)
            new_keys = await sieve.keys(keys)
            new_logins = await sieve.logins(logins)
            if self._dry_run and self._replaces:
                return sieve  # whom it would replace is still in the way
            there = await arrivals.add_users(tx, new_users)
            sieve.are_late([user for user in new_users if user.id not in there])
            await arrivals.add_keys(tx, new_keys)
            await arrivals.add_logins(tx, new_logins)
            if self._dry_run:
                raise _TakenBack(sieve)
            await foreign.add_schemes(tx, schemes)
            new: list[Arrival] = [user for user in new_users if user.id in there]
            new += [*new_keys, *new_logins]
            await arrivals.remember(tx, self._origin, [names(each)[:2] for each in new])
            await audit.append_many(tx, self.call.app.ring, [self._event(each) for each in new])
            return sieve

        # Whoever looks for keys by their schemes must hear of a new one.
        tags = (TAG,) if schemes and not self._dry_run else ()
        try:
            sieve, _ = await self.call.app.change(body, lambda _: tags)
            self._schemes |= schemes
        except _TakenBack as end:
            sieve = end.sieve
        except Unwritable as error:
            await self._halve(batch, error)
            return
        self._account(batch, sieve)

    async def _halve(self, batch: Sequence[Arrival], error: Unwritable) -> None:
        if len(batch) == 1:
            sort, id, _ = names(batch[0])
            reason = f"the database does not take it ({error})"
            self._skip(Broken(sort=sort, id=id, reason=reason))
            return
        half = len(batch) // 2
        await self._write(batch[:half])
        await self._write(batch[half:])

    def _account(self, batch: Sequence[Arrival], sieve: Sieve) -> None:
        broken = {(each.sort, each.id) for each in sieve.broken}
        for each in batch:
            sort, id, _ = names(each)
            if (sort, id) in broken:
                continue
            if sort == "user":
                self.owners.add(id)
            elif sort == "key":
                self.keys.add(id)
            if (sort, id) in sieve.present:
                self._counts[sort, "present"] += 1
            else:
                self._counts[sort, "imported"] += 1
        for one in sieve.broken:
            self._skip(one)
        self._ended += sieve.ended

    def _event(self, arrival: Arrival) -> audit.Event:
        sort, id, owner_id = names(arrival)
        return told(
            self.call, f"{sort}.imported", owner_id=owner_id, target_id=id, origin=self._origin
        )


class _TakenBack(Exception):
    """Undoes what a dry run wrote."""

    def __init__(self, sieve: Sieve) -> None:
        super().__init__()
        self.sieve = sieve


def _unique(arrival: Arrival) -> tuple[str | bytes, ...]:
    """What no other row may have."""
    if isinstance(arrival, User):
        return (arrival.id, arrival.email)
    if isinstance(arrival, ArrivingKey):
        return (arrival.key.id, *(secret.digest for secret in arrival.secrets))
    return (arrival.login.id, arrival.digest)
