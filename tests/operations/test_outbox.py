import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from sqlalchemy import text

from keybearer.adapters.mail import Mail, MailFailed
from keybearer.adapters.sql import outbox as sql
from keybearer.adapters.sql.outbox import Letter
from keybearer.domain.credentials import PepperRing
from keybearer.domain.errors import Unavailable
from keybearer.domain.jwt import seal
from keybearer.domain.ports import Transaction
from keybearer.operations import outbox
from tests.operations.house import House, open_house
from tests.people import SECRET

MINUTE = 60_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR


class Post:
    """A mail server of the tests: keeps what it takes, and fails as it is told to."""

    def __init__(self, *failures: Exception) -> None:
        self.taken: list[Mail] = []
        self.failures = list(failures)
        self.threads: set[str] = set()

    def send(self, mail: Mail) -> None:
        self.threads.add(threading.current_thread().name)
        if self.failures:
            raise self.failures.pop(0)
        self.taken.append(mail)


@pytest.fixture
async def house(ready_url: str) -> AsyncIterator[House]:
    async with open_house(ready_url) as opened:
        yield opened


async def put(house: House, *, to: str = "ann@example.com", n: int = 1) -> None:
    async def body(tx: Transaction) -> None:
        for number in range(n):
            mail = Mail(to=to, subject=f"Mail {number}", text="the link")
            await outbox.put(house.call(), tx, mail)

    await house.app.database.write(body)


async def only(house: House) -> Letter:
    (letter,) = await outbox.recent(house.app)
    return letter


async def test_what_is_due_is_sent_once_from_another_thread(house: House) -> None:
    await put(house, n=25)
    post = Post()
    await outbox.deliver(house.app, post)
    await outbox.deliver(house.app, post)
    assert sorted(mail.subject for mail in post.taken) == sorted(f"Mail {n}" for n in range(25))
    assert threading.current_thread().name not in post.threads


async def test_of_many_that_deliver_at_once_each_mail_is_sent_by_one(house: House) -> None:
    await put(house, n=30)
    posts = [Post() for _ in range(5)]
    await asyncio.gather(*(outbox.deliver(house.app, post) for post in posts))
    assert sum(len(post.taken) for post in posts) == 30


async def test_a_transaction_that_fails_mails_nothing(house: House) -> None:
    async def body(tx: Transaction) -> None:
        await outbox.put(house.call(), tx, Mail(to="a@example.com", subject="x", text="x"))
        raise KeyError

    with pytest.raises(KeyError):
        await house.app.database.write(body)
    assert await outbox.recent(house.app) == []


async def test_the_text_of_a_sent_mail_is_wiped_where_there_is_a_mail_server(
    house: House,
) -> None:
    house.configure(smtp_url="smtp://mail.example.com")
    await put(house)
    await outbox.deliver(house.app, Post())
    letter = await only(house)
    assert (letter.text, letter.sent_at, letter.next_attempt_at) == ("", house.clock.now(), None)
    assert "link" not in repr(letter)


async def test_a_printed_mail_can_be_read_for_a_day(house: House) -> None:
    await put(house)
    await outbox.deliver(house.app, Post())
    house.clock.time += DAY
    assert await outbox.sweep(house.app) == 0
    assert (await only(house)).text == "the link"
    house.clock.time += 1
    assert await outbox.sweep(house.app) == 1
    assert (await only(house)).text == ""
    house.clock.time += 30 * DAY
    assert await outbox.sweep(house.app) == 1
    assert await outbox.recent(house.app) == []


async def test_a_mail_that_fails_is_tried_later_and_later(house: House) -> None:
    house.configure(smtp_url="smtp://mail.example.com")
    await put(house)
    waits = []
    for _ in range(6):
        post = Post(MailFailed("the server is away"))
        await outbox.deliver(house.app, post)
        assert post.failures == []
        letter = await only(house)
        assert (letter.text, letter.error) == ("the link", "the server is away")
        assert letter.next_attempt_at is not None
        waits.append(letter.next_attempt_at - house.clock.now())
        house.clock.time = letter.next_attempt_at - 1
        await outbox.deliver(house.app, Post(AssertionError("too soon")))
        house.clock.time += 1
    assert waits == [MINUTE, 5 * MINUTE, 30 * MINUTE, 2 * HOUR, 6 * HOUR, DAY]
    post = Post()
    await outbox.deliver(house.app, post)
    assert len(post.taken) == 1
    letter = await only(house)
    assert (letter.error, letter.attempts) == (None, 7)


async def test_a_mail_is_given_up_after_a_week_and_stays_to_be_seen(house: House) -> None:
    house.configure(smtp_url="smtp://mail.example.com")
    await put(house)
    house.clock.time += 7 * DAY
    await outbox.deliver(house.app, Post(MailFailed("the server is away")))
    letter = await only(house)
    assert (letter.next_attempt_at, letter.sent_at, letter.text) == (None, None, "")
    house.clock.time += 60 * DAY
    assert await outbox.sweep(house.app) == 0
    assert (await only(house)).error == "the server is away"
    house.clock.time += 60 * DAY
    assert await outbox.sweep(house.app) == 1


@pytest.mark.parametrize(
    "failure", [MailFailed("refused: 550", permanent=True), ValueError("no address")]
)
async def test_what_is_refused_for_good_is_not_tried_again(
    house: House, failure: Exception
) -> None:
    await put(house)
    await outbox.deliver(house.app, Post(failure))
    house.clock.time += DAY
    await outbox.deliver(house.app, Post(AssertionError("again")))
    assert (await only(house)).error == str(failure)


async def test_a_mail_whose_sender_died_goes_out_ten_minutes_later(house: House) -> None:
    await put(house)
    with pytest.raises(ConnectionAbortedError):
        await outbox.deliver_due(house.app, Post(ConnectionAbortedError()))
    await outbox.deliver(house.app, Post(AssertionError("still claimed")))
    house.clock.time += 10 * MINUTE
    post = Post()
    await outbox.deliver(house.app, post)
    assert len(post.taken) == 1


async def test_a_lost_database_is_waited_out(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    class Lost:
        async def write(self, _body: object) -> None:
            raise Unavailable("gone")

    await outbox.deliver(replace(house.app, database=Lost()), Post())  # type: ignore[arg-type]
    assert [record.message for record in caplog.records] == ["mail.waiting"]


async def stored(house: House) -> str:
    (letter,) = await house.app.database.read(lambda tx: sql.recent(tx, limit=2))
    return letter.text


async def test_a_text_is_sealed_while_it_waits_and_outlives_a_rotated_secret(house: House) -> None:
    await put(house)
    assert "link" not in await stored(house)
    old = house.app.ring
    house.app = replace(house.app, ring=PepperRing([b"n" * 32, SECRET.encode()]))
    assert old.newest.id != house.app.ring.newest.id
    post = Post()
    await outbox.deliver(house.app, post)
    assert [mail.text for mail in post.taken] == ["the link"]


async def test_a_text_whose_secret_is_gone_is_given_up(house: House) -> None:
    await put(house)
    house.app = replace(house.app, ring=PepperRing([b"n" * 32]))
    post = Post()
    await outbox.deliver(house.app, post)
    letter = await only(house)
    assert post.taken == []
    assert (letter.text, letter.next_attempt_at) == ("", None)
    assert letter.error == "sealed with a SECRET that is gone"


async def test_a_seal_of_another_use_is_never_mailed(house: House) -> None:
    """Who may write to the database must not get a signing key sent to them."""
    await put(house)
    key = seal(house.app.ring.newest.signing_secret, "a signing key")
    await house.app.database.write(
        lambda tx: tx.run(text("UPDATE outbox SET text = :key"), key=key)
    )
    post = Post()
    await outbox.deliver(house.app, post)
    assert post.taken == []
