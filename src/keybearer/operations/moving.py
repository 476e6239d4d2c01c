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
from keybearer.domain.arrivals import ArrivingKey, ArrivingLogin, Broken, Sort, Unwritable
from keybearer.domain.errors import Failure
from keybearer.domain.foreign import TAG, Scheme
from keybearer.domain.model import User
from keybearer.domain.ports import Transaction
from keybearer.domain.records import storable
from keybearer.operations.app import record, told
from keybearer.operations.declaration import Call, Output

BATCH = 500

Arrival = User | ArrivingKey | ArrivingLogin


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
    """What an import did, or would do."""

    origin: str
    dry_run: bool
    users: Count
    keys: Count
    sessions: Count
    skipped: list[Skipped]
    notes: list[Note]


class Moving:
    """One import, from its first row to its report.

    Args:
        origin: whose database it is, for the report and the trail.

    Attributes:
        owners: the ids of users who are here, or will be.
        keys: the ids of keys that came, or were here before.
    """

    def __init__(self, call: Call, origin: str, *, dry_run: bool) -> None:
        if not call.trusted:
            raise Failure("ADMIN_REQUIRED")
        self.call = call
        self.owners: set[str] = set()
        self.keys: set[str] = set()
        self._origin = origin
        self._dry_run = dry_run
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
        sort, id, owner_id = _names(arrival)
        self._counts[sort, "found"] += 1
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
        missing = set(filter(storable, ids)) - self.owners
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
        return Report(
            origin=self._origin,
            dry_run=self._dry_run,
            users=users,
            keys=keys,
            sessions=logins,
            skipped=self._skipped,
            notes=[Note(note=text, count=n) for text, n in sorted(self._notes.items())],
        )

    def _count(self, sort: Sort) -> Count:
        return Count(**{name: self._counts[sort, name] for name in Count.__struct_fields__})

    def _skip(self, broken: Broken) -> None:
        self._counts[broken.sort, "skipped"] += 1
        self._skipped.append(Skipped(kind=broken.sort, id=broken.id, reason=broken.reason))

    # --- one batch: arrivals of one chain of the trail ---

    async def _write(self, batch: Sequence[Arrival]) -> None:
        users = [each for each in batch if isinstance(each, User)]
        keys = [each for each in batch if isinstance(each, ArrivingKey)]
        logins = [each for each in batch if isinstance(each, ArrivingLogin)]
        secrets = (secret for key in keys for secret in key.secrets)
        schemes = {each.scheme for each in secrets if each.scheme is not None} - self._schemes

        async def body(tx: Transaction) -> _Outcome:
            await audit.lock(tx, _names(batch[0])[2])
            outcome = _Outcome()
            new_users = await _sift_users(tx, users, outcome)
            new_keys = await _sift_keys(tx, keys, outcome)
            new_logins = await _sift_logins(tx, logins, outcome)
            there = await arrivals.add_users(tx, new_users)
            outcome.late += [user for user in new_users if user.id not in there]
            await arrivals.add_keys(tx, new_keys)
            await arrivals.add_logins(tx, new_logins)
            if self._dry_run:
                raise _TakenBack(outcome)
            await foreign.add_schemes(tx, schemes)
            came = [self._event(user) for user in new_users if user.id in there]
            came += [self._event(key) for key in new_keys]
            came += [self._event(login) for login in new_logins]
            await audit.append_many(tx, self.call.app.ring, came)
            return outcome

        # Whoever looks for keys by their schemes must hear of a new one.
        tags = (TAG,) if schemes else ()
        try:
            outcome, _ = await self.call.app.change(body, lambda _: tags)
            self._schemes |= schemes
        except _TakenBack as end:
            outcome = end.outcome
        except Unwritable as error:
            await self._halve(batch, error)
            return
        self._account(batch, outcome)

    async def _halve(self, batch: Sequence[Arrival], error: Unwritable) -> None:
        if len(batch) == 1:
            sort, id, _ = _names(batch[0])
            reason = f"the database does not take it ({error})"
            self._skip(Broken(sort=sort, id=id, reason=reason))
            return
        half = len(batch) // 2
        await self._write(batch[:half])
        await self._write(batch[half:])

    def _account(self, batch: Sequence[Arrival], outcome: "_Outcome") -> None:
        for user in outcome.late:
            reason = "the address is another user's here"
            outcome.broken.append(Broken(sort="user", id=user.id, reason=reason))
        broken = {(each.sort, each.id) for each in outcome.broken}
        for each in batch:
            sort, id, _ = _names(each)
            if (sort, id) in broken:
                continue
            if sort == "user":
                self.owners.add(id)
            elif sort == "key":
                self.keys.add(id)
            if (sort, id) in outcome.present:
                self._counts[sort, "present"] += 1
            else:
                self._counts[sort, "imported"] += 1
        for one in outcome.broken:
            self._skip(one)

    def _event(self, arrival: Arrival) -> audit.Event:
        sort, id, owner_id = _names(arrival)
        return told(
            self.call, f"{sort}.imported", owner_id=owner_id, target_id=id, origin=self._origin
        )


class _Outcome:
    """What a batch found: who was there before, what cannot come, and who was too late."""

    def __init__(self) -> None:
        self.present: set[tuple[Sort, str]] = set()
        self.broken: list[Broken] = []
        self.late: list[User] = []


class _TakenBack(Exception):
    """Undoes what a dry run wrote."""

    def __init__(self, outcome: _Outcome) -> None:
        super().__init__()
        self.outcome = outcome


def _names(arrival: Arrival) -> tuple[Sort, str, str]:
    """What it is, its id, and whose it is."""
    if isinstance(arrival, User):
        return "user", arrival.id, arrival.id
    if isinstance(arrival, ArrivingKey):
        return "key", arrival.key.id, arrival.key.owner_id
    return "session", arrival.login.id, arrival.login.user_id


def _unique(arrival: Arrival) -> tuple[str | bytes, ...]:
    """What no other row may have."""
    if isinstance(arrival, User):
        return (arrival.id, arrival.email)
    if isinstance(arrival, ArrivingKey):
        return (arrival.key.id, *(secret.digest for secret in arrival.secrets))
    return (arrival.login.id, arrival.digest)


async def _sift_users(tx: Transaction, users: Sequence[User], outcome: _Outcome) -> Sequence[User]:
    if not users:
        return []
    there = await arrivals.users_there(
        tx, [user.id for user in users], [user.email for user in users]
    )
    taken = frozenset(there.values())
    new = []
    for user in users:
        if user.id in there:
            outcome.present.add(("user", user.id))
        elif user.email in taken:
            outcome.late.append(user)
        else:
            new.append(user)
    return new


async def _sift_keys(
    tx: Transaction, keys: Sequence[ArrivingKey], outcome: _Outcome
) -> Sequence[ArrivingKey]:
    if not keys:
        return []
    digests = [secret.digest for each in keys for secret in each.secrets]
    ids, taken = await arrivals.keys_there(tx, [each.key.id for each in keys], digests)
    new = []
    for each in keys:
        if each.key.id in ids:
            outcome.present.add(("key", each.key.id))
        elif any(secret.digest in taken for secret in each.secrets):
            reason = "another key here has the same secret"
            outcome.broken.append(Broken(sort="key", id=each.key.id, reason=reason))
        else:
            new.append(each)
    return new


async def _sift_logins(
    tx: Transaction, logins: Sequence[ArrivingLogin], outcome: _Outcome
) -> Sequence[ArrivingLogin]:
    if not logins:
        return []
    ids, taken = await arrivals.logins_there(
        tx, [each.login.id for each in logins], [each.digest for each in logins]
    )
    new = []
    for each in logins:
        if each.login.id in ids:
            outcome.present.add(("session", each.login.id))
        elif each.digest in taken:
            reason = "another session here has the same token"
            outcome.broken.append(Broken(sort="session", id=each.login.id, reason=reason))
        else:
            new.append(each)
    return new
