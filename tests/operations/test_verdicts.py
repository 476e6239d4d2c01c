"""The answers that are put together are those that the operation gives, byte for byte."""

import msgspec
import pytest

from keybearer.domain.model import EXPIRING_MS
from keybearer.operations import verdicts as module
from keybearer.operations.app import App
from keybearer.operations.keyedits import UpdateKey, update_api_key
from keybearer.operations.keyends import RotateKey, rotate_api_key
from keybearer.operations.keys import CreateKey, create_api_key
from keybearer.operations.verdicts import Verdicts
from keybearer.operations.verify import Verification, VerifyKey, verify
from tests.people import StandingClock, call_of, person

HERE = "203.0.113.7"
TRICKY = '"lastRequest":1,"remaining":2 \\ \u00e9'


@pytest.fixture
def verdicts() -> Verdicts:
    return Verdicts()


async def make(app: App, **asked: object) -> str:
    """A key of Ada's, with what only the server may set."""
    owner = await person(app)
    made = await create_api_key(call_of(app), CreateKey(user_id=owner.id, **asked))  # type: ignore[arg-type]
    assert made.key is not None
    return made.key


async def told(app: App, verdicts: Verdicts, key: str, cost: int = 0) -> Verification:
    """The answer to a check, once both ways have given the same."""
    answer = await verdicts.verify(app, VerifyKey(key=key, cost=cost))
    look = VerifyKey(key=key, cost=0)
    whole = msgspec.json.encode(await verify(app, look))
    assert await verdicts.verify(app, look) == whole
    if cost:
        assert answer == whole
    return msgspec.json.decode(answer, type=Verification)


async def test_each_use_is_in_the_answer_to_it(
    app: App, verdicts: Verdicts, clock: StandingClock
) -> None:
    key = await make(app, name=TRICKY[:30], metadata={"lastRequest": 1, "remaining": [TRICKY]})
    for number in range(1, 4):
        clock.advance(100)
        agent = (b"user-agent", f'curl "{number}"'.encode())
        await app.verifier.verify([(b"x-api-key", key.encode()), agent], HERE)
        answer = await told(app, verdicts, key, cost=1)
        assert answer.key is not None
        assert answer.key.request_count == 2 * number
        assert answer.key.metadata == {"lastRequest": 1, "remaining": [TRICKY]}
        if number == 2:
            await app.verifier.usage.flush(app.clock.now())


async def test_a_change_is_in_the_next_answer(app: App, verdicts: Verdicts) -> None:
    key = await make(app, name="before")
    record = (await told(app, verdicts, key, cost=1)).key
    assert record is not None
    await update_api_key(call_of(app), UpdateKey(key_id=record.id, name="after"))
    changed = (await told(app, verdicts, key, cost=1)).key
    assert changed is not None
    assert (record.name, changed.name) == ("before", "after")
    await update_api_key(call_of(app), UpdateKey(key_id=record.id, enabled=False))
    refused = await told(app, verdicts, key)
    assert refused.error is not None
    assert refused.error.code == "KEY_DISABLED"


async def test_the_word_for_the_state_changes_with_time(
    app: App, verdicts: Verdicts, clock: StandingClock
) -> None:
    lasts = (EXPIRING_MS + 86_400_000) // 1_000
    key = await make(app, expires_in=lasts)
    states = []
    for _ in range(3):
        answer = await told(app, verdicts, key)
        states.append(answer.key.status if answer.key else answer.error and answer.error.code)
        clock.advance(lasts * 500)
    assert states == ["active", "expiring", "KEY_EXPIRED"]


async def test_both_secrets_of_a_rotating_key_are_answered(app: App, verdicts: Verdicts) -> None:
    key = await make(app)
    record = (await told(app, verdicts, key, cost=1)).key
    assert record is not None
    made = await rotate_api_key(call_of(app), RotateKey(key_id=record.id))
    assert made.key is not None
    for number, secret in enumerate((made.key, key, made.key), start=2):
        rotating = (await told(app, verdicts, secret, cost=1)).key
        assert rotating is not None
        assert (rotating.status, rotating.request_count) == ("rotating", number)


async def test_a_quota_is_told_as_it_is_left(app: App, verdicts: Verdicts) -> None:
    key = await make(app, remaining=3)
    record = (await told(app, verdicts, key, cost=2)).key
    assert record is not None
    assert record.remaining == 1
    refused = await told(app, verdicts, key, cost=0)
    assert refused.valid


async def test_it_remembers_no_more_than_it_may(
    app: App, verdicts: Verdicts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_REMEMBERED", 1)
    first = await make(app)
    record = (await told(app, verdicts, first)).key
    assert record is not None
    second = await create_api_key(call_of(app), CreateKey(user_id=record.reference_id))
    for key in (first, second.key, first):
        assert key is not None
        assert (await told(app, verdicts, key, cost=1)).valid
        assert len(verdicts._written) == 1
