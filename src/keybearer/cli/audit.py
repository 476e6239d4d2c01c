"""`keybearer audit`: read the trail, and check that nobody changed it."""

import click

from keybearer.cli.operator import check_owner, operator, owner_of
from keybearer.cli.output import answer, command, encode, fail, say, table


@click.group()
def audit() -> None:
    """The audit trail: list, verify, heads."""


@command(audit, "list")
@click.option("--owner", metavar="EMAIL", help="Only this person's trail.")
@click.option("--owner-id", metavar="ID", help="Only this owner's trail.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
async def listing(*, owner: str | None, owner_id: str | None, limit: int, as_json: bool) -> None:
    """Lists the newest events."""
    from keybearer.adapters.sql import audit as sql
    from keybearer.operations.reports import audit_event

    check_owner(owner, owner_id)
    async with operator() as call:
        of = await owner_of(call, owner, owner_id) or ""
        found = await call.app.database.read(lambda tx: sql.newest(tx, owner_id=of, limit=limit))
    events = [audit_event(event) for event in found]
    if as_json:
        answer(encode({"events": events}))
        return
    rows = [
        (event.at, event.event, event.outcome, f"{event.actor_kind}:{event.actor_id or '–'}",
         event.target_id, event.ip, encode(event.details) if event.details else None)
        for event in events
    ]  # fmt: skip
    answer(table(("AT", "EVENT", "OUTCOME", "ACTOR", "TARGET", "IP", "DETAILS"), rows))


@command(audit, "verify")
async def verify(*, as_json: bool) -> None:
    """Walks every chain: nothing was changed, taken out or cut off."""
    from keybearer.adapters.sql import audit as sql

    async with operator() as call:
        ring = call.app.ring
        count, faults = await call.app.database.read(lambda tx: sql.verify(tx, ring))
    if as_json:
        answer(encode({"valid": not faults, "events": count, "faults": faults}))
    for fault in faults:
        say(f"chain {fault.chain}, event {fault.seq}: {fault.reason}")
    if faults:
        fail(f"the trail does not hold in {len(faults)} places", as_json=as_json)
    if not as_json:
        say(f"the trail holds: {count} events")


@command(audit, "heads")
async def heads(*, as_json: bool) -> None:
    """Prints the ends of the chains; kept elsewhere, they prove a trail complete later."""
    from keybearer.adapters.sql import audit as sql

    async with operator() as call:
        found = await call.app.database.read(sql.heads)
    if as_json:
        shown = [{"chain": head.chain, "seq": head.seq, "mac": head.mac.hex()} for head in found]
        answer(encode({"heads": shown}))
        return
    rows = [(str(head.chain), str(head.seq), head.mac.hex()) for head in found]
    answer(table(("CHAIN", "EVENTS", "MAC"), rows))
