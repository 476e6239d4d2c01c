"""The log of changes as rows: numbers, marks, and what a log that went back tells."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text

from keybearer.adapters.sql.coherence import SqlLog, forget
from keybearer.adapters.sql.database import open_database
from keybearer.domain.changes import Member
from keybearer.domain.ports import Database, Transaction
from keybearer.verification.coherence import LEASE_MS
from tests.people import START, StandingClock


class Rows:
    """A log of a database, whose changes can be lost."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.log = SqlLog(database, StandingClock())

    async def change(self) -> int:
        return await self.database.write(lambda tx: self.log.append(tx, ("key:1",), "a"))

    async def lose(self, many: int) -> None:
        async def body(tx: Transaction) -> None:
            await tx.run(text("UPDATE coherence SET seq = seq - :many"), many=many)
            await tx.run(
                text(
                    "UPDATE coherence SET mark = "
                    "(SELECT i.mark FROM invalidations i WHERE i.seq = coherence.seq)"
                )
            )
            await tx.run(text("DELETE FROM invalidations WHERE seq > (SELECT seq FROM coherence)"))

        await self.database.write(body)


@pytest.fixture
async def rows(ready_url: str) -> AsyncIterator[Rows]:
    database, _ = open_database(ready_url)
    yield Rows(database)
    await database.close()


async def test_the_mark_of_a_change_is_told_for_as_long_as_it_is_in_the_log(rows: Rows) -> None:
    first = await rows.change()
    known = await rows.log.news("a", first)
    assert known.mark is not None
    assert (known.mark_after, known.changes) == (known.mark, [])
    await rows.change()
    later = await rows.log.news("a", first)
    assert later.mark_after == known.mark != later.mark
    assert [change.seq for change in later.changes] == [first + 1]
    assert (await rows.log.news("a", None)).mark_after is None
    assert (await rows.log.news("a", first + 2)).mark_after is None
    await rows.database.write(lambda tx: tx.run(text("DELETE FROM invalidations")))
    assert (await rows.log.news("a", first)).mark_after is None


async def test_a_log_that_went_back_has_another_mark(rows: Rows) -> None:
    last = max([await rows.change() for _ in range(3)])
    known = await rows.log.news("a", last)
    await rows.lose(1)
    assert (await rows.log.news("a", last)).mark_after is None
    assert await rows.change() == last
    assert (await rows.log.news("a", last)).mark_after not in (None, known.mark)
    await rows.change()
    assert (await rows.log.news("a", last)).mark_after not in (None, known.mark)


async def test_a_new_database_has_a_mark_that_no_other_has(rows: Rows) -> None:
    news = await rows.log.news("a", 1)
    assert news.seq == 1
    assert news.mark == news.mark_after
    assert news.mark is not None


async def test_what_was_applied_of_a_lost_log_is_not_noted_in_the_new_one(rows: Rows) -> None:
    await rows.log.join(Member(id="a", lease_ms=LEASE_MS))

    async def applied() -> int:
        return (await rows.log.members())[0].applied

    await rows.change()
    last = await rows.change()
    lost = (await rows.log.news("a", last)).mark
    await rows.lose(1)
    await rows.log.note("a", last, lost)
    assert await applied() == 0
    await rows.change()
    await rows.log.note("a", last, lost)
    assert await applied() == 0
    mark = (await rows.log.news("a", last)).mark
    await rows.change()
    await rows.log.note("a", last, mark)
    assert await applied() == last


async def test_upkeep_leaves_the_last_change_whose_mark_is_asked_for(rows: Rows) -> None:
    last = max([await rows.change() for _ in range(3)])
    assert await rows.database.write(lambda tx: forget(tx, before=START + 10**9)) == 2
    known = await rows.log.news("a", last)
    await rows.change()
    assert (await rows.log.news("a", last)).mark_after == known.mark
