"""A keybearer without its server: real parts, a clock that the test moves, cheap hashes."""

import contextlib
import dataclasses
import itertools
import os
import re
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
from sqlalchemy import insert, select

from keybearer.adapters.passwords import Cost, Hasher
from keybearer.adapters.sql import audit, keys
from keybearer.adapters.sql.coherence import SqlLog
from keybearer.adapters.sql.database import migrate, open_database
from keybearer.adapters.sql.outbox import Letter
from keybearer.adapters.sql.tables import api_keys, sessions, users
from keybearer.adapters.tracing import NO_TRACER
from keybearer.domain.changes import Member
from keybearer.domain.credentials import PepperRing
from keybearer.domain.ids import RANDOM_BYTES
from keybearer.domain.model import ANONYMOUS, ANYONE, Anonymous, Key, RequestFacts, Session, User
from keybearer.domain.ports import Row, Transaction
from keybearer.operations import outbox
from keybearer.operations.app import App
from keybearer.operations.declaration import Call
from keybearer.operations.keyconfig import KeyConfig
from keybearer.settings import load
from keybearer.verification.cache import Cache
from keybearer.verification.coherence import LEASE_MS, NoBus
from keybearer.verification.lease import NoLease
from keybearer.verification.spread import Spread
from tests.verification.parts import entry

START = 1_700_000_000_000
PASSWORD = "quiet otters fold paper maps"
OTHER = "seven lamps under green rain"
OPERATOR = Session(subject=ANYONE, kind="operator", id="command")
_LINK = re.compile(r"http://127\.0\.0\.1:8000/api/auth/\S+")
_TOKEN = re.compile(r"[A-Za-z0-9]{43}")


class Clock:
    def __init__(self) -> None:
        self.time = START

    def now(self) -> int:
        return self.time


@dataclasses.dataclass
class House:
    app: App
    clock: Clock
    cache: Cache
    woken: list[int]

    def call(
        self, caller: Session | Anonymous = ANONYMOUS, *, ip: str | None = "203.0.113.7"
    ) -> Call:
        facts = RequestFacts(id="request", ip=ip, user_agent="test")
        return Call(app=self.app, caller=caller, facts=facts, now=self.clock.now())

    @property
    def operator(self) -> Call:
        return self.call(OPERATOR, ip=None)

    def configure(self, **settings: object) -> None:
        changed = msgspec.structs.replace(self.app.settings, **settings)
        self.app = dataclasses.replace(self.app, settings=changed)

    async def add_user(self, email: str = "ann@example.com", **columns: object) -> User:
        now = self.clock.now()
        password = columns.pop("password", PASSWORD)
        values: dict[str, Any] = {
            "id": self.app.new_id(now),
            "email": email,
            "name": "Ann",
            "image": None,
            "role": "user",
            "locale": None,
            "email_verified_at": now,
            "disabled_at": None,
            "password_hash": None
            if password is None
            else await self.app.hasher.hash(str(password)),
            "created_at": now,
            "updated_at": now,
            **columns,
        }

        async def body(tx: Transaction) -> None:
            await tx.run(insert(users).values(**values))

        await self.app.database.write(body)
        return User(**values)

    async def user(self, email: str = "ann@example.com") -> User | None:
        rows = await self.rows(select(users).where(users.c.email == email))
        return User(**rows[0]._mapping) if rows else None

    async def log_in(self, user: User, *, ip: str = "203.0.113.7") -> Session:
        """Writes a login session, and gives the caller who has it."""
        now = self.clock.now()
        id = self.app.new_id(now)

        async def body(tx: Transaction) -> None:
            await tx.run(
                insert(sessions).values(
                    id=id,
                    user_id=user.id,
                    client_id="web",
                    created_at=now,
                    last_seen_at=now,
                    authenticated_at=now,
                    expires_at=now + 86_400_000,
                    idle_ms=86_400_000,
                    ip=ip,
                )
            )

        await self.app.database.write(body)
        return Session(subject=user.id, kind="session", id=id, session_id=id)

    async def live_sessions(self, user: User) -> set[str]:
        statement = select(sessions.c.id).where(
            sessions.c.user_id == user.id, sessions.c.ended_at.is_(None)
        )
        return {row.id for row in await self.rows(statement)}

    async def add_key(self, user: User) -> str:
        now = self.clock.now()
        id = self.app.new_id(now)

        async def body(tx: Transaction) -> None:
            await tx.run(
                insert(api_keys).values(
                    id=id,
                    owner_id=user.id,
                    config_id="default",
                    prefix="kb_",
                    start="kb_abcd",
                    enabled=True,
                    created_at=now,
                    updated_at=now,
                    created_by=user.id,
                    rate_limit_enabled=False,
                    request_count=0,
                )
            )

        await self.app.database.write(body)
        return id

    async def key(self, id: str) -> Key:
        async def body(tx: Transaction) -> Key | None:
            return await keys.by_id(tx, id, now=self.clock.now())

        found = await self.app.database.read(body)
        assert found is not None
        return found

    def remember(self, *tags: str) -> bytes:
        """Puts an entry into the cache, to see whether it goes."""
        digest = os.urandom(32)
        self.cache.put(digest, entry(*tags), begun=self.cache.generation)
        return digest

    async def letters(self) -> list[Letter]:
        """What was mailed, oldest first."""

        return (await outbox.recent(self.app, limit=200))[::-1]

    async def subjects(self) -> list[str]:
        return [letter.subject for letter in await self.letters()]

    async def link(self) -> str:
        """The link in the newest mail."""
        found = _LINK.search((await self.letters())[-1].text)
        assert found is not None
        return found[0]

    async def token(self) -> str:
        found = _TOKEN.search(await self.link())
        assert found is not None
        return found[0]

    async def events(self) -> list[tuple[str, str, str | None]]:
        """Event, outcome and owner of the trail, oldest first."""

        async def body(tx: Transaction) -> list[audit.Event]:
            return list(await audit.newest(tx, limit=500))

        trail = await self.app.database.read(body)
        return [(event.event, event.outcome, event.owner_id) for event in reversed(trail)]

    async def named(self) -> list[str]:
        """The names of the events alone, oldest first."""
        return [event for event, _, _ in await self.events()]

    async def targets(self, name: str) -> list[str | None]:
        """What the events of one name were done to, oldest first."""

        async def body(tx: Transaction) -> list[audit.Event]:
            return list(await audit.newest(tx, limit=500))

        trail = await self.app.database.read(body)
        return [event.target_id for event in reversed(trail) if event.event == name]

    async def rows(self, statement: object) -> Sequence[Row]:
        async def body(tx: Transaction) -> Sequence[Row]:
            return await tx.all(statement)

        return await self.app.database.read(body)


@contextlib.asynccontextmanager
async def open_house(database_url: str) -> AsyncIterator[House]:
    secret = "tests-only-Zq8vT3mX1cR7nB5kW9yL2dF6"
    settings = load({"database_url": database_url, "secret": secret}, environ={})
    database, _lock = open_database(database_url)
    await migrate(database)
    clock, cache, woken = Clock(), Cache(100), list[int]()
    hasher = Hasher(threads=2, cost=Cost(memory_kib=8, passes=1))
    ids = itertools.count()

    def entropy(n: int) -> bytes:
        # Ids of one millisecond sort as they were made, so that tests can speak of an order.
        return next(ids).to_bytes(2) + os.urandom(8) if n == RANDOM_BYTES else os.urandom(n)

    parts: dict[str, Any] = dict.fromkeys(
        field.name for field in dataclasses.fields(App) if field.init
    )
    parts |= {
        "settings": settings,
        "clock": clock,
        "entropy": entropy,
        "database": database,
        "ring": PepperRing([secret.encode()]),
        "spread": Spread(
            cache=cache,
            clock=clock,
            log=SqlLog(database, clock),
            bus=NoBus(),
            lease=NoLease(cache),
            me=Member(id="house", lease_ms=LEASE_MS),
        ),
        "hasher": hasher,
        "tracer": NO_TRACER,
        "cookie": "keybearer.session_token",
        "accounts": True,
        "catalogue": frozenset(),
        "key_configs": (KeyConfig(),),
        "wake_mail": lambda: woken.append(clock.now()),
        "mounted_at": lambda: "/api/auth",
        "page": lambda path: f"http://127.0.0.1:8000/{path}",
    }
    app = App(**parts)
    try:
        yield House(app=app, clock=clock, cache=cache, woken=woken)
    finally:
        hasher.close()
        await database.close()
