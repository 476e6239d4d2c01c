"""Real processes under load, killed, paused and cut off: every answer is checked.

In `make test` a short form; `make soak` goes on until so many nodes were killed, so many keys were
revoked and so many operations were checked, or the first answer that nothing explains:

    make soak TRIALS=1000 REVOCATIONS=10000 OPERATIONS=10000000
"""

import asyncio
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.context import SpawnProcess
from pathlib import Path

import msgspec
import pytest
from msgspec import UNSET

from keybearer import Auth
from keybearer.adapters.sql.database import migrate, open_database
from keybearer.operations import service_tokens
from keybearer.operations.keys import CreateKey
from keybearer.operations.tokens import Login
from tests.people import PASSWORD, SECRET, call_of, person
from tests.soak.clients import Plan, guests, holders, settle
from tests.soak.history import History, Refresh, wrong_checks
from tests.soak.nodes import Site, running_site
from tests.soak.quotas import Quota, wrong_spends
from tests.soak.refreshes import wrong_refreshes
from tests.soak.weather import SECONDS, Weather

LONG = "SOAK" in os.environ
TRIALS = int(os.environ.get("TRIALS") or 1_000)
REVOCATIONS = int(os.environ.get("REVOCATIONS") or 10_000)
OPERATIONS = int(os.environ.get("OPERATIONS") or 10_000_000)
NODES = 4 if LONG else 3
ROUND_SECONDS = 90 if LONG else 15
STARTED = 50
"""So many keys have had their turn before anything is done to the nodes."""

KEYS = 900 if LONG else 500
QUOTAS = [300, 40, 500, 120, 400_000] if LONG else [150, 40, 50_000]
"""Units; of the last one, processes take chunks."""
FAMILIES = 6 if LONG else 4
GUESTS = 1
OWNERS = 20
LASTING = (*SECONDS, 7.0) if LONG else SECONDS

_spawn = multiprocessing.get_context("spawn")


@dataclass
class Tally:
    """What was done and checked so far."""

    events: Counter[str]
    done: Counter[str] = field(default_factory=Counter)
    receipts: list[float] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    begun: float = field(default_factory=time.monotonic)

    def count(self, history: History, site: Site) -> None:
        self.done["operations"] += len(history)
        self.done.update(history.unanswered)
        for check in history.checks:
            self.done[f"checks: {check.seen}"] += 1
        for each in history.revocations:
            if each.waited_ms is None:
                self.done["revocations: no receipt"] += 1
                continue
            self.done["revocations: receipts"] += 1
            if not site.was_hurt(each.node, each.start, each.end):
                self.receipts.append((each.end - each.start) / 1e6)
                self.waits.append(each.waited_ms)
        for spend in history.spends:
            self.done[f"quota: {spend.seen}"] += 1
        for refresh in history.refreshes:
            said = "unknown" if refresh.answer is None else "good" if refresh.answer else "refused"
            self.done[f"refresh: {said}"] += 1

        for use in history.uses:
            self.done[f"access tokens: {use.seen}"] += 1

    def table(self) -> str:
        rows: list[tuple[str, float]] = [*sorted(self.done.items()), *sorted(self.events.items())]
        for name, values in (("receipt", self.receipts), ("wait for others", self.waits)):
            ordered = sorted(values) or [0]
            rows += [
                (f"{name} by a node that was well, {share:.0%}", ordered[int(len(ordered) * share)])
                for share in (0.5, 0.99)
            ]
            rows.append((f"{name}, the longest", ordered[-1]))
        rows.append(("seconds", time.monotonic() - self.begun))
        return "\n".join(f"{name:46}{number:>12,.0f}" for name, number in rows)


def test_every_answer_of_killed_paused_and_cut_off_nodes_is_explained(tmp_path: Path) -> None:
    with running_site(tmp_path, NODES, _make_schema) as site:
        site.start()
        tally = Tally(site.events)
        keys: Sequence[tuple[str, str]] = []
        families: Sequence[tuple[str, str]] = []
        before: list[Refresh] = []
        for number in range(1_000_000 if LONG else 1):
            plan = asyncio.run(_make(site, number, keys, families))
            history, quotas, families = _round(site, plan, tmp_path)
            keys = plan.keys[plan.at.value :]
            wrong = [
                *wrong_checks(history.checks, history.revocations),
                *wrong_spends(history.spends, quotas),
                *wrong_refreshes([*before, *history.refreshes], history.uses),
            ]
            # A log-in goes on in the next round, and so do attempts that nobody has answered.
            alive = {name for name, _ in families}
            before = [each for each in [*before, *history.refreshes] if each.family in alive]
            tally.count(history, site)
            print(f"\n--- round {number} ---\n{tally.table()}", flush=True)  # noqa: T201
            assert not wrong, "\n".join(wrong[:20])
            if _is_enough(tally):
                break
        if not LONG:
            assert tally.done["revocations: receipts"] >= 50
            assert tally.done["checks: good"] >= 1_000
            assert tally.done["refresh: good"] >= 20
            assert tally.events["paused"]
            assert tally.events["killed"]


def _is_enough(tally: Tally) -> bool:
    return (
        tally.events["killed"] >= TRIALS
        and tally.done["revocations: receipts"] >= REVOCATIONS
        and tally.done["operations"] >= OPERATIONS
    )


def _round(
    site: Site, plan: Plan, folder: Path
) -> tuple[History, Sequence[Quota], Sequence[tuple[str, str]]]:
    """Lets the clients work in bad weather, and looks in good weather at what is left."""
    files = [folder / f"guests-{number}" for number in range(GUESTS)]
    mine = folder / "holders"
    clients: list[SpawnProcess] = [
        _spawn.Process(target=guests, args=(replace(plan, seed=plan.seed * 10 + n), file))
        for n, file in enumerate(files)
    ]
    clients.append(_spawn.Process(target=holders, args=(plan, mine)))
    losses = site.losses
    for client in clients:
        client.start()
    while plan.at.value < STARTED:
        time.sleep(0.02)  # whoever is cut off shall have in its cache what is revoked meanwhile
        assert all(client.is_alive() for client in clients)
    weather = Weather(site, plan.seed, seconds=LASTING)
    weather.blow(time.monotonic() + ROUND_SECONDS)
    plan.stop.value = 1
    weather.calm()
    for client in clients:
        client.join()
        assert client.exitcode == 0
    history, live = msgspec.msgpack.decode(mine.read_bytes(), type=tuple[History, dict[str, str]])
    for file in files:
        history.add(msgspec.msgpack.decode(file.read_bytes(), type=History))
    remaining = asyncio.run(settle(plan, history, large=[len(QUOTAS) - 1]))
    quotas = [
        Quota(units=units, remaining=left, losses=site.losses - losses)
        for units, left in zip(QUOTAS, remaining, strict=True)
    ]
    return history, quotas, [each for each in live.items() if each[1]]


# --- what they work with ---------------------------------------------------------------------


def _make_schema(database: str) -> None:
    async def make() -> None:
        opened, _ = open_database(database)
        await migrate(opened)
        await opened.close()

    asyncio.run(make())


async def _make(
    site: Site, number: int, keys: Sequence[tuple[str, str]], families: Sequence[tuple[str, str]]
) -> Plan:
    """A service token, keys with their ids, quotas, and logins that can be refreshed.

    Args:
        keys: those that are left from the round before; so are `families`.
    """
    auth = Auth(site.database, secret=SECRET, token_management=True, serving=False)
    await auth.start()
    app = await auth.running()
    owner = await person(app, f"ann{number}@example.com")
    _, token = await service_tokens.create(call_of(app), name="soak")

    # Of many owners: changes of the same one's keys wait for each other.
    owners = [owner.id]
    for other in range(OWNERS):
        made = await person(app, f"bob{number}.{other}@example.com", password=None)
        owners.append(made.id)

    async def key(units: int | None, of: str) -> tuple[str, str]:
        made = await auth.api.create_api_key(
            CreateKey(
                user_id=of,
                rate_limit_enabled=False,
                remaining=UNSET if units is None else units,
            )
        )
        assert made.key is not None
        return made.key, made.id

    new = range(KEYS - len(keys))
    keys = [*keys, *[await key(None, owners[each % len(owners)]) for each in new]]
    quotas = [await key(units, owner.id) for units in QUOTAS]
    live = list(families)
    while len(live) < FAMILIES:
        pair = await auth.api.login(Login(email=owner.email, password=PASSWORD))
        live.append((f"{number}.{len(live)}", pair.refresh_token))
    await auth.stop()
    return Plan(
        ports=[node.port for node in site.nodes],
        keys=keys,
        quotas=quotas,
        families=live,
        token=token.reveal(),
        at=_spawn.Value("i", 0),
        stop=_spawn.Value("i", 0),
        seed=number,
    )


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if "KEYBEARER" in name:
            monkeypatch.delenv(name)
