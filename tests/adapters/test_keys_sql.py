"""Keys on both databases: SQL says what the rules of the domain say."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from keybearer.adapters.sql import activity, keylists, keys, keysecrets, quotas, usage
from keybearer.adapters.sql.database import open_database
from keybearer.adapters.sql.postgres import PostgresDatabase
from keybearer.adapters.sql.sqlite import SqliteDatabase
from keybearer.adapters.sql.tables import activity as activity_rows
from keybearer.adapters.sql.tables import api_key_secrets, api_keys
from keybearer.adapters.sql.tables import usage as usage_rows
from keybearer.domain.model import EXPIRING_MS, Key, Status
from keybearer.domain.ports import Transaction
from keybearer.domain.uses import Count, Sample
from tests.people import START

AnyDatabase = SqliteDatabase | PostgresDatabase

NOW = START
STATUSES: Sequence[Status] = get_args(Status)
_numbers = itertools.count(1)


@pytest.fixture
async def database(ready_url: str) -> AsyncIterator[AnyDatabase]:
    opened, _lock = open_database(ready_url)
    yield opened
    await opened.close()


def key_of(**fields: Any) -> Key:
    told: dict[str, Any] = {
        "id": f"k{next(_numbers):06}",
        "owner_id": "ann",
        "config_id": "default",
        "name": "ci",
        "description": None,
        "prefix": "kb_",
        "start": "kb_abcd",
        "enabled": True,
        "created_at": NOW,
        "updated_at": NOW,
        "created_by": "ann",
        "expires_at": None,
        "revoked_at": None,
        "revoked_reason": None,
        "permissions": None,
        "metadata": None,
        "ip_allow": (),
        "rate_limit_enabled": False,
        "rate_limit_max": None,
        "rate_limit_window_ms": None,
        "remaining": None,
        "refill_amount": None,
        "refill_interval_ms": None,
        "last_refill_at": None,
        "last_used_at": None,
        "last_used_ip": None,
        "last_used_user_agent": None,
        "request_count": 0,
    }
    return Key(**(told | fields))


async def add(database: AnyDatabase, *new: Key, replaced_until: int | None = None) -> None:
    """Writes keys; with `replaced_until` each has an old secret too, which ends then."""

    async def body(tx: Transaction) -> None:
        for key in new:
            digest = key.id.encode()
            await keys.add(tx, key, digest=digest, pepper_id="p", idempotency=None)
            if replaced_until is not None:
                await keysecrets.end(tx, key.id, until=replaced_until)
                await keysecrets.add(
                    tx, key.id, digest=digest + b"+", pepper_id="p", start="s", now=key.created_at
                )

    await database.write(body)


async def stored(database: AnyDatabase, id: str, now: int = NOW) -> Key:
    found = await database.read(lambda tx: keys.by_id(tx, id, now=now))
    assert found is not None
    return found


async def listed(database: AnyDatabase, **asked: Any) -> tuple[list[str], int]:
    """The ids of a page, and how many keys there are."""
    wanted: dict[str, Any] = {"owner_id": "ann", "now": NOW, "limit": 1000, "offset": 0}
    found, total = await database.read(lambda tx: keylists.page(tx, **(wanted | asked)))
    return [key.id for key in found], total


# --- the list -------------------------------------------------------------------------------------


async def every_kind(database: AnyDatabase) -> list[str]:
    """Keys of every state, on both sides of every border."""
    ids = []
    expiries = (None, -1, 0, 1, EXPIRING_MS - 1, EXPIRING_MS, EXPIRING_MS + 1)
    for replaced_until in (None, NOW - 1, NOW, NOW + 1):
        made = [
            key_of(
                enabled=enabled,
                revoked_at=revoked_at,
                expires_at=None if expiry is None else NOW + expiry,
            )
            for enabled in (True, False)
            for revoked_at in (None, NOW - 5, NOW + 5)
            for expiry in expiries
        ]
        await add(database, *made, replaced_until=replaced_until)
        ids += [key.id for key in made]
    return ids


async def test_the_list_filters_by_the_words_that_the_records_say(database: AnyDatabase) -> None:
    ids = await every_kind(database)
    said = {id: (await stored(database, id)).status(NOW) for id in ids}
    assert set(said.values()) == set(STATUSES)
    for wanted in (
        *((status,) for status in STATUSES),
        *itertools.combinations(STATUSES, 2),
        STATUSES,
        (),
    ):
        found, total = await listed(database, statuses=wanted)
        expected = {id for id in ids if not wanted or said[id] in wanted}
        assert (set(found), len(found), total) == (expected, len(expected), len(expected)), wanted


async def test_the_words_change_with_the_time(database: AnyDatabase) -> None:
    ids = await every_kind(database)
    for later in (1, 2, EXPIRING_MS, EXPIRING_MS + 2):
        now = NOW + later
        for status in STATUSES:
            found, _ = await listed(database, statuses=(status,), now=now)
            said = {id for id in ids if (await stored(database, id, now)).status(now) == status}
            assert set(found) == said, (status, later)


async def test_by_status_the_list_goes_from_what_asks_for_something_to_what_is_over(
    database: AnyDatabase,
) -> None:
    ids = await every_kind(database)
    said = {id: (await stored(database, id)).status(NOW) for id in ids}
    gravity = ("rotating", "expiring", "active", "disabled", "expired", "revoked")
    assert sorted(gravity) == sorted(STATUSES)
    for descending in (False, True):
        found, _ = await listed(database, sort_by="status", descending=descending)
        expected = sorted(ids, key=lambda id: (gravity.index(said[id]), id), reverse=descending)
        assert found == expected
        paged = [
            id
            for offset in range(0, len(ids), 50)
            for id in (
                await listed(
                    database, sort_by="status", descending=descending, limit=50, offset=offset
                )
            )[0]
        ]
        assert paged == expected


def is_alive(key: Key, now: int) -> bool:
    return key.status(now) not in ("revoked", "expired")


async def test_the_list_finds_what_ends_before_an_instant(database: AnyDatabase) -> None:
    ids = await every_kind(database)
    made = [await stored(database, id) for id in ids]
    for border in (NOW, NOW + 1, NOW + 2, NOW + EXPIRING_MS, NOW + EXPIRING_MS + 1):
        expected = {
            key.id
            for key in made
            if is_alive(key, NOW) and key.expires_at is not None and key.expires_at < border
        }
        found, total = await listed(database, expires_before=border)
        assert (set(found), total) == (expected, len(expected)), border
    narrowed, _ = await listed(
        database, expires_before=NOW + EXPIRING_MS, statuses=("disabled",), search="ci"
    )
    assert narrowed
    assert {(await stored(database, id)).status(NOW) for id in narrowed} == {"disabled"}


async def test_the_list_finds_what_nobody_used_since_an_instant(database: AnyDatabase) -> None:
    borders = (-1, 0, 1)
    made = [
        key_of(created_at=NOW - 100 + born, last_used_at=None if used is None else NOW - 100 + used,
               enabled=enabled, expires_at=expires_at, revoked_at=revoked_at)
        for born in borders
        for used in (None, *borders)
        for enabled in (True, False)
        for expires_at in (None, NOW, NOW + 1)
        for revoked_at in (None, NOW - 1)
    ]  # fmt: skip
    await add(database, *made)
    since = NOW - 100
    expected = {
        key.id
        for key in made
        if is_alive(key, NOW)
        and key.created_at <= since
        and (key.last_used_at is None or key.last_used_at <= since)
    }
    found, total = await listed(database, unused_since=since)
    assert (set(found), total) == (expected, len(expected))
    counted = await database.read(
        lambda tx: keylists.summarize(
            tx, "ann", now=NOW, expires_before=NOW + 2, unused_since=since
        )
    )
    ending, _ = await listed(database, expires_before=NOW + 2)
    assert counted == keylists.Summary(
        total=len(made),
        live=sum(is_alive(key, NOW) for key in made),
        expiring=len(ending),
        unused=len(expected),
    )


async def test_a_summary_is_one_owners_or_everyones(database: AnyDatabase) -> None:
    async def total(owner_id: str | None) -> int:
        counted = await database.read(
            lambda tx: keylists.summarize(
                tx, owner_id, now=NOW, expires_before=NOW, unused_since=NOW
            )
        )
        return counted.total

    assert await total("ann") == await total(None) == 0
    await add(database, key_of(), key_of(owner_id="bob"), key_of(owner_id="bob"))
    assert (await total("ann"), await total("bob"), await total(None)) == (1, 2, 3)
    assert await total("%") == 0


WORDS = ("files", "file", "s", "read", "read.all", "rea", "a-b", "a.b", "axb", "x_y", "0")


@given(
    held=st.lists(st.frozensets(st.tuples(st.sampled_from(WORDS), st.sampled_from(WORDS))),
                  min_size=1, max_size=6),
    asked=st.tuples(st.sampled_from(WORDS), st.sampled_from(WORDS)),
)  # fmt: skip
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_the_list_finds_a_permission_and_nothing_like_it(
    database: AnyDatabase, held: list[frozenset[tuple[str, str]]], asked: tuple[str, str]
) -> None:
    owner = f"o{next(_numbers)}"
    made = [
        key_of(owner_id=owner, permissions=frozenset(":".join(pair) for pair in pairs))
        for pairs in held
    ]
    await add(database, *made, key_of(owner_id=owner))  # and one that was given none
    wanted = ":".join(asked)
    found, total = await listed(database, owner_id=owner, permission=wanted)
    expected = {key.id for key in made if wanted in (key.permissions or ())}
    assert (set(found), total) == (expected, len(expected))


async def test_search_is_text_and_no_pattern(database: AnyDatabase) -> None:
    texts = [
        "100% sure",
        "100 sure",
        "a_b",
        "axb",
        "sl/ash",
        "back\\slash",
        "it's",
        'say "x"',
        "[a-c]",
        "UPPER lower",
        "ünï",
        "* ? ^ $",
    ]
    made = {text: key_of(name=text, start="kb.") for text in texts}
    described = {text: key_of(name=None, description=text, start="kb.") for text in texts}
    await add(database, *made.values(), *described.values())
    for wanted in (
        *"%_/\\'\"[*?^$ü",
        "%%",
        "a_b",
        "a_",
        "/%",
        "\\%",
        "upper LOWER",
        "100%",
        "' OR",
    ):
        found, total = await listed(database, search=wanted)
        expected = {
            keys_of[text].id
            for keys_of in (made, described)
            for text in texts
            if wanted.lower() in text.lower()
        }
        assert (set(found), total) == (expected, len(expected)), wanted


async def test_search_looks_at_name_description_and_start(database: AnyDatabase) -> None:
    named, described = key_of(name="needle"), key_of(description="a Needle here")
    started, metadata = key_of(start="kb_nEEd"), key_of(metadata={"x": "needle"})
    await add(database, named, described, started, metadata)
    assert set((await listed(database, search="needle"))[0]) == {named.id, described.id}
    assert set((await listed(database, search="need"))[0]) == {named.id, described.id, started.id}


@pytest.mark.parametrize("sort_by", sorted(keylists.SORTABLE))
@pytest.mark.parametrize("descending", [True, False])
async def test_pages_make_up_the_list_whatever_the_order(
    database: AnyDatabase, sort_by: str, descending: bool
) -> None:
    made = [
        key_of(name=name, expires_at=NOW + n % 3, last_used_at=used, created_at=NOW + n // 2)
        for n, (name, used) in enumerate(
            itertools.product((None, "a", "b"), (None, NOW, NOW + 1)), start=1
        )
    ]
    await add(database, *made, key_of(owner_id="bob"))
    order: dict[str, Any] = {"sort_by": sort_by, "descending": descending}
    whole, total = await listed(database, **order)
    paged: list[str] = []
    while found := (await listed(database, **order, limit=2, offset=len(paged)))[0]:
        paged += found
    assert paged == whole
    assert (sorted(whole), total) == (sorted(key.id for key in made), len(made))
    if sort_by in ("name", "lastRequest"):
        values = {key.id: key.name if sort_by == "name" else key.last_used_at for key in made}
        assert [values[id] for id in whole][-3:] == [None] * 3  # the last, in both directions
        known: list[Any] = [values[id] for id in whole][:-3]
        assert known == sorted(known, reverse=descending)


async def test_only_the_operator_sees_everyones_keys(database: AnyDatabase) -> None:
    mine, theirs = key_of(), key_of(owner_id="bob")
    await add(database, mine, theirs)
    assert await listed(database) == ([mine.id], 1)
    assert set((await listed(database, owner_id=None))[0]) == {mine.id, theirs.id}
    assert await listed(database, owner_id="%") == ([], 0)


async def test_live_keys_are_those_that_are_neither_revoked_nor_expired(
    database: AnyDatabase,
) -> None:
    ids = await every_kind(database)
    said = [(await stored(database, id)).status(NOW) for id in ids]
    live = sum(status not in ("revoked", "expired") for status in said)
    assert await database.read(lambda tx: keys.count_live(tx, "ann", now=NOW)) == live


# --- what changes ---------------------------------------------------------------------------------


async def test_what_was_written_is_read_back(database: AnyDatabase) -> None:
    key = key_of(
        permissions=frozenset({"files:read", "deploy:run"}),
        metadata={"a": [1, {"b": None}]},
        ip_allow=("203.0.113.0/24",),
        remaining=2**53,
        expires_at=NOW + 2**40,
    )
    await add(database, key)
    assert await stored(database, key.id) == key


async def test_a_change_writes_its_columns_and_no_others(database: AnyDatabase) -> None:
    key = key_of(remaining=5)
    await add(database, key)
    await database.write(lambda tx: quotas.take(tx, key.id, [1], now=NOW))
    await database.write(lambda tx: keys.save(tx, key.id, {"name": "new", "metadata": None}))
    after = await stored(database, key.id)
    assert (after.name, after.remaining) == ("new", 4)


async def test_a_key_is_revoked_once(database: AnyDatabase) -> None:
    key = key_of()
    await add(database, key)

    async def revoke(now: int) -> bool:
        return await database.write(lambda tx: keys.revoke(tx, key.id, now=now, reason=str(now)))

    assert sorted(await asyncio.gather(*(revoke(NOW + n) for n in range(20)))) == [False] * 19 + [
        True
    ]
    first = await stored(database, key.id)
    assert first.revoked_reason == str(first.revoked_at)
    assert not await revoke(NOW + 100)
    assert await stored(database, key.id) == first


async def test_many_keys_are_locked_in_one_order_and_none_of_others(
    database: AnyDatabase,
) -> None:
    mine, theirs = [key_of() for _ in range(8)], key_of(owner_id="bob")
    await add(database, *mine, theirs)
    ids = [key.id for key in mine]

    async def change(n: int) -> None:
        async def body(tx: Transaction) -> None:
            asked = [*(ids if n % 2 else ids[::-1]), theirs.id, "nobody"]
            found = await keys.lock_many(tx, asked, owner_id="ann", now=NOW)
            assert [key.id for key in found] == ids
            if n % 3:
                await keys.switch_many(tx, asked[:8], enabled=n % 2 == 0, now=NOW + n)
            else:
                await keys.revoke_owners(tx, "ann", now=NOW + n, reason="over")

        await database.write(body)

    await asyncio.gather(*(change(n) for n in range(24)))
    assert await stored(database, theirs.id) == theirs
    everyones = await database.write(
        lambda tx: keys.lock_many(tx, [theirs.id, ids[0]], owner_id=None, now=NOW)
    )
    assert [key.id for key in everyones] == sorted([theirs.id, ids[0]])


async def test_many_keys_are_revoked_once_each(database: AnyDatabase) -> None:
    first, second, other = key_of(), key_of(), key_of()
    await add(database, first, second, other)
    both = [first.id, second.id]
    await database.write(lambda tx: keys.revoke(tx, first.id, now=NOW, reason="before"))
    await database.write(lambda tx: keys.revoke_many(tx, both, now=NOW + 1, reason=None))
    told = [(key.revoked_at, key.revoked_reason) for key in
            [await stored(database, key.id) for key in (first, second, other)]]  # fmt: skip
    assert told == [(NOW, "before"), (NOW + 1, None), (None, None)]
    assert (await stored(database, second.id)).updated_at == NOW + 1
    await database.write(lambda tx: keys.revoke_many(tx, [], now=NOW + 2, reason=None))


async def test_an_end_of_a_secret_is_never_put_off(database: AnyDatabase) -> None:
    key = key_of()
    await add(database, key)

    async def end(until: int) -> None:
        await database.write(lambda tx: keysecrets.end(tx, key.id, until=until))

    for until in (NOW + 100, NOW + 500, NOW + 50):
        await end(until)
    found = await database.read(lambda tx: keys.by_digest(tx, [key.id.encode()], now=NOW))
    assert found is not None
    assert found[1].usable_until == NOW + 50


async def test_a_secret_is_found_by_any_digest_and_moves_to_the_newest(
    database: AnyDatabase,
) -> None:
    key = key_of()
    await add(database, key)
    old, new = key.id.encode(), b"new digest"
    await database.write(lambda tx: keysecrets.redigest(tx, old=old, new=new, pepper_id="q"))

    async def found(*digests: bytes) -> Key | None:
        pair = await database.read(lambda tx: keys.by_digest(tx, digests, now=NOW))
        return None if pair is None else pair[0]

    assert await found(old) is None
    assert await found(new) == key
    assert await found(b"other", new) == key


# --- the retention --------------------------------------------------------------------------------


async def rows_of(database: AnyDatabase, table: Any, id: str) -> int:
    column = table.c.id if table is api_keys else table.c.key_id
    statement = select(func.count().label("n")).select_from(table).where(column == id)
    row = await database.read(lambda tx: tx.one(statement))
    assert row is not None
    return int(row.n)


async def test_keys_go_when_they_ended_long_ago_with_all_that_hangs_on_them(
    database: AnyDatabase,
) -> None:
    going = [key_of(revoked_at=NOW - 1), key_of(expires_at=NOW - 1)]
    staying = [
        key_of(),
        key_of(revoked_at=NOW),
        key_of(expires_at=NOW),
        key_of(expires_at=NOW + 1, enabled=False),
    ]
    await add(database, *going, *staying, replaced_until=NOW + 5)
    counts = [Count(key_id=key.id, hour=0, outcome="accepted", n=3) for key in (*going, *staying)]
    dialect = "sqlite" if isinstance(database, SqliteDatabase) else "postgresql"
    await database.write(lambda tx: usage.add(tx, counts, dialect=dialect))
    happened = [
        Sample(key_id=count.key_id, outcome="accepted", at=NOW, n=3, ip=None, user_agent=None)
        for count in counts
    ]
    await database.write(lambda tx: activity.add(tx, happened, dialect=dialect))

    assert await database.write(lambda tx: keys.forget_ended(tx, before=NOW)) == 2
    assert await database.write(lambda tx: keys.forget_ended(tx, before=NOW)) == 0
    for key in going:
        for table in (api_keys, api_key_secrets, usage_rows, activity_rows):
            assert await rows_of(database, table, key.id) == 0
    for key in staying:
        kept = [
            await rows_of(database, table, key.id)
            for table in (api_keys, api_key_secrets, usage_rows, activity_rows)
        ]
        assert kept == [1, 2, 1, 1]


async def test_a_round_of_the_retention_takes_so_many(database: AnyDatabase) -> None:
    await add(database, *(key_of(revoked_at=NOW - 1) for _ in range(5)))
    rounds = [
        await database.write(lambda tx: keys.forget_ended(tx, before=NOW, limit=2))
        for _ in range(4)
    ]
    assert rounds == [2, 2, 1, 0]
