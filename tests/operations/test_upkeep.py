"""What is done beside the requests."""

import pytest
from sqlalchemy import insert, select

from keybearer.adapters.sql import audit, batches, coherence
from keybearer.adapters.sql.tables import invalidations, usage_batches
from keybearer.operations import upkeep
from keybearer.operations.app import App
from keybearer.operations.keyends import RevokeKey, revoke_api_key
from keybearer.operations.keys import CreateKey, ListKeys, create_api_key, list_api_keys
from tests.people import StandingClock, call_of, person


async def test_a_signing_key_is_followed_by_the_next_when_it_is_due(
    app: App, clock: StandingClock
) -> None:
    first = await app.signing.signer()
    assert await upkeep.rotate_signing(app) is None
    clock.advance(app.settings.signing_key_rotation)
    kid = await upkeep.rotate_signing(app)
    assert kid not in (None, first.kid)
    trail = await app.database.read(lambda tx: audit.newest(tx, limit=1))
    assert [(event.event, event.target_id, event.actor_id) for event in trail] == [
        ("signing_key.rotated", kid, "schedule")
    ]


async def test_batches_of_usage_that_nobody_can_bring_any_more_are_forgotten(
    app: App, clock: StandingClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "_BATCH", 2)
    old = [{"id": f"old{n}", "written_at": clock.now()} for n in range(5)]
    await app.database.write(lambda tx: tx.run_many(insert(usage_batches), old))
    clock.advance(batches.KEPT_MS)
    for kept in (5, 0):
        await upkeep.forget_ended(app)
        rows = await app.database.read(lambda tx: tx.all(select(usage_batches)))
        assert len(rows) == kept
        clock.advance(1)


async def test_keys_that_ended_long_ago_go_in_batches(
    app: App, clock: StandingClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "_BATCH", 2)
    operator = call_of(app)
    owner = (await person(app)).id
    ids = []
    for _ in range(5):
        made = await create_api_key(operator, CreateKey(user_id=owner))
        await revoke_api_key(operator, RevokeKey(key_id=made.id))
        ids.append(made.id)
    kept = await create_api_key(operator, CreateKey(user_id=owner))
    assert await upkeep.forget_ended(app) == 0
    clock.advance(app.settings.key_retention + 1)
    assert await upkeep.forget_ended(app) == len(ids)
    page = await list_api_keys(operator, ListKeys(user_id=owner))
    assert [key.id for key in page.api_keys] == [kept.id]


async def test_changes_that_every_node_has_read_are_forgotten(
    app: App, clock: StandingClock
) -> None:
    owner = (await person(app)).id
    for _ in range(2):
        made = await create_api_key(call_of(app), CreateKey(user_id=owner))
        await revoke_api_key(call_of(app), RevokeKey(key_id=made.id))

    async def kept() -> int:
        rows = await app.database.read(lambda tx: tx.all(select(invalidations.c.seq)))
        return len(rows)

    clock.advance(coherence.KEPT_MS)
    await upkeep.forget_ended(app)
    before = await kept()
    assert before > 1
    clock.advance(1)
    await upkeep.forget_ended(app)
    assert await kept() == 1  # the last one, whose mark tells that nothing is missing
