"""The audit trail: nothing without its event, no event without its change (A310 to A313)."""

import re
from collections import Counter

import pytest
from sqlalchemy import select, text

from keybearer.adapters.sql import audit
from keybearer.adapters.sql.tables import metadata
from keybearer.domain.errors import Unavailable
from keybearer.domain.ports import Transaction
from keybearer.operations.app import App
from tests.attacks.deeds import AGENT, DEEDS, accepted
from tests.attacks.town import Town, is_problem
from tests.people import StandingClock, make_key

_COUNTED = {"throttles", "usage", "usage_batches", "outbox", "nodes"}
"""What a refused request may change; the others belong to work beside the requests."""

_USES = {"last_seen_at", "last_used_at", "last_used_ip", "last_used_user_agent", "request_count",
         "limit_state"}  # fmt: skip


async def trail(app: App) -> dict[str, audit.Event]:
    """Every event by its id."""
    return {
        each.id: each for each in await app.database.read(lambda tx: audit.newest(tx, limit=5000))
    }


async def state(app: App) -> dict[str, Counter[str]]:
    """Everything that is kept, but what is only counted."""
    await app.verifier.usage.flush(app.clock.now())

    async def body(tx: Transaction) -> dict[str, Counter[str]]:
        return {
            table.name: Counter(
                str(dict(row._mapping))
                for row in await tx.all(
                    select(*(column for column in table.c if column.name not in _USES))
                )
            )
            for table in metadata.sorted_tables
            if table.name not in _COUNTED | {"audit"}
        }

    return await app.database.read(body)


async def rename(app: App, old: str, new: str) -> None:
    await app.database.write(lambda tx: tx.run(text(f"ALTER TABLE {old} RENAME TO {new}")))


async def test_a310_each_deed_leaves_its_events_and_no_others(
    town: Town, clock: StandingClock
) -> None:
    for name, deed in DEEDS.items():
        town.client.cookies.clear()  # what the deed before has left
        done = await deed.prepare(town)
        clock.advance(1000)
        before = await trail(town.app)
        accepted(await done(), deed)
        after = await trail(town.app)
        written = [after[id] for id in after if id not in before]
        assert Counter(each.event for each in written) == Counter(deed.events), name
        for each in written:
            assert each.at == clock.now(), name  # milliseconds since the epoch, UTC
            assert each.actor_kind == deed.actor, name
            if each.event != "refresh.reuse":
                assert each.outcome == deed.outcome, name
            if deed.actor == "operator":
                if each.event != "signing_key.rotated":  # which no request asks for
                    assert (each.ip, each.user_agent, each.request_id) == (
                        "203.0.113.7", "tests", "req",
                    )  # fmt: skip
            else:
                assert (each.ip, each.user_agent) == ("127.0.0.1", AGENT["user-agent"]), name
                assert re.fullmatch(r"[0-9a-f]{16}", each.request_id or ""), name
            assert each.target_id, name
            known = deed.actor != "anonymous" or each.event in {
                "user.signed_up", "email.verified", "session.opened", "password.reset",
            }  # fmt: skip
            assert (each.actor_id is not None) == known, name


async def test_a310_who_switched_a_key_on_or_off_is_told(town: Town) -> None:
    for enabled in (False, True):
        await town.post("/api-key/update", town.t1, keyId=town.k1["id"], enabled=enabled)
        (event, *_) = (await town.get("/audit", town.t1, event="key.updated")).json()["events"]
        assert event["details"] == {"fields": "enabled", "enabled": enabled}
        assert event["targetId"] == town.k1["id"]
        assert event["at"].endswith("Z")


async def test_a310_the_request_id_of_an_answer_finds_its_event(town: Town) -> None:
    answer = await town.create(name="traced")
    (event,) = [
        each for each in (await trail(town.app)).values()
        if each.request_id == answer.headers["x-request-id"]
    ]  # fmt: skip
    assert (event.event, event.target_id) == ("key.created", answer.json()["id"])


async def test_a312_what_cannot_be_recorded_is_not_done(town: Town, clock: StandingClock) -> None:
    for name, deed in DEEDS.items():
        town.client.cookies.clear()  # what the deed before has left
        done = await deed.prepare(town)
        clock.advance(1000)
        before = await state(town.app)
        await rename(town.app, "audit", "audit_lost")
        try:
            answer = await done()
        except Unavailable:
            answer = None
        await rename(town.app, "audit_lost", "audit")
        if answer is not None:
            assert is_problem(answer, 503, "UNAVAILABLE"), name  # type: ignore[arg-type]
            assert int(answer.headers["retry-after"]) > 0  # type: ignore[attr-defined]
        assert await state(town.app) == before, name
        accepted(await done(), deed)
        if deed.refused_with is None or len(deed.events) > 1:
            assert await state(town.app) != before, name


async def test_a313_nobody_reads_the_events_of_another(town: Town) -> None:
    theirs = town.k2["id"]
    for query in ({"target": theirs}, {"target": town.u2}, {"event": "key.created"}, {}):
        page = (await town.get("/audit", town.t1, **query)).json()
        text = str(page)
        assert theirs not in text
        assert town.u2 not in text
        assert page["total"] == len(page["events"])
    for query in ({"owner": town.u2}, {"userId": town.u2}, {"ownerId": town.u2}):
        assert is_problem(await town.get("/audit", town.t1, **query), 400, "UNKNOWN_FIELD")
    assert is_problem(await town.get("/audit", town.key1), 403, "SESSION_REQUIRED")
    assert is_problem(await town.get("/audit"), 401, "UNAUTHORIZED")


@pytest.mark.parametrize("name", ['=HYPERLINK("http://e")', "+1", "-1", "@SUM(A1)", "<b>x</b>"])
async def test_a313_names_come_back_as_data(town: Town, name: str) -> None:
    made = await make_key(town.client, town.t1, name=name)
    answer = await town.get("/audit", town.t1, target=made["id"])
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.json()["events"][0]["details"]["name"] == name
