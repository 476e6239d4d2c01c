"""What the log says of leases and members: once for each change of their state."""

import asyncio
import logging
from typing import Any

import pytest

from keybearer.domain.changes import Change, Member
from keybearer.domain.errors import Unavailable
from keybearer.verification.cache import Cache
from keybearer.verification.coherence import LEASE_MS, SLACK_MS, NoBus
from keybearer.verification.lease import Lease
from keybearer.verification.spread import Spread
from tests.people import StandingClock
from tests.verification.parts import MemoryLog

ME = "me"


class Scene:
    """A node, the log of the database, and what is logged."""

    def __init__(self, caplog: pytest.LogCaptureFixture, *, stale_ms: int = 0) -> None:
        caplog.set_level(logging.INFO, "keybearer")
        self._caplog = caplog
        self.clock, self.log, cache = StandingClock(), MemoryLog(), Cache(10)
        me = Member(id=ME, lease_ms=LEASE_MS + stale_ms)
        self.lease = Lease(
            cache=cache, clock=self.clock, log=self.log, bus=NoBus(), me=me,
            still_ours=self.log.check,
        )  # fmt: skip
        self.spread = Spread(
            cache=cache, clock=self.clock, log=self.log, bus=NoBus(), lease=self.lease, me=me
        )

    async def renew(self, *, after_ms: int = 0) -> None:
        self.clock.advance(after_ms)
        try:
            await self.lease.renew()
        except Unavailable:
            assert self.log.lost

    async def settle(self, seq: int) -> None:
        """A change that nobody acknowledges, with time that passes as soon as it waits."""
        settling = asyncio.create_task(self.spread.settle(Change(seq, ("key:k",), ME)))
        await asyncio.sleep(0.001)
        self.clock.advance(LEASE_MS + SLACK_MS)
        self.spread._asked[seq].stirred.set()
        await settling
        await self.spread.finish()

    @property
    def told(self) -> list[str]:
        return [each.message for each in self._caplog.records if each.name == "keybearer"]

    def facts(self, event: str) -> dict[str, Any]:
        (record,) = [each for each in self._caplog.records if each.message == event]
        return record.__dict__


async def test_a_lease_is_told_of_when_it_is_over_and_when_it_is_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scene = Scene(caplog)
    await scene.renew()
    scene.log.lost = True
    await scene.renew(after_ms=500)
    assert scene.told == []  # it is still held
    for _ in range(3):
        await scene.renew(after_ms=LEASE_MS)
    scene.log.lost = False
    for _ in range(2):
        await scene.renew(after_ms=500)
    assert scene.told == ["lease.lost", "lease.regained"]
    assert (scene.facts("lease.lost")["node"], scene.facts("lease.lost")["reason"]) == (ME, "lost")


async def test_a_lease_is_over_on_the_millisecond(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene(caplog)
    await scene.renew()
    scene.log.lost = True
    await scene.renew(after_ms=LEASE_MS - 1)
    assert scene.told == []
    await scene.renew(after_ms=1)
    assert scene.told == ["lease.lost"]


async def test_of_two_nodes_the_one_that_does_not_answer_is_told_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scene = Scene(caplog)
    for id in ("quick", "silent"):
        await scene.log.join(Member(id=id, lease_ms=LEASE_MS))
    settling = asyncio.create_task(scene.settle(1))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    scene.spread.acknowledged(1, "quick")
    await settling
    assert scene.facts("node.suspected")["nodes"] == ["silent"]


async def test_a_stretched_lease_is_told_of_before_it_is_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scene = Scene(caplog, stale_ms=60_000)
    await scene.renew()
    scene.log.lost = True
    for ms in (500, 500, 60_000, LEASE_MS, 500):
        await scene.renew(after_ms=ms)
    assert scene.told == ["lease.stretched", "lease.lost"]


async def test_a_node_that_does_not_answer_is_told_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scene = Scene(caplog)
    await scene.renew()
    await scene.log.join(Member(id="silent", lease_ms=LEASE_MS))
    await scene.settle(1)
    await scene.settle(2)
    assert (scene.spread.suspected, scene.spread.nodes) == (1, 1)
    assert scene.told == ["node.suspected"]
    told = scene.facts("node.suspected")
    assert (told["nodes"], told["change"]) == (["silent"], 1)
    await scene.spread.look_after_members()
    scene.clock.advance(LEASE_MS + SLACK_MS)
    await scene.spread.look_after_members()
    await scene.spread.look_after_members()
    assert scene.told[1:] == ["node.expelled"]
    assert scene.facts("node.expelled")["nodes"] == ["silent"]
    assert scene.spread.suspected == 0


async def test_a_suspected_node_tells_that_it_is_there(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene(caplog)
    await scene.renew()
    await scene.log.suspect([ME], 7)
    await scene.renew(after_ms=500)
    assert scene.told == ["node.readmitted"]


async def test_a_node_that_was_forgotten_tells_so(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene(caplog)
    await scene.renew()
    await scene.log.leave(ME)
    await scene.renew(after_ms=500)
    await scene.renew(after_ms=500)
    assert scene.told == ["node.forgotten"]
    assert ME in scene.log.nodes


async def test_who_is_expelled_in_the_moment_of_its_word_joins_anew(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(caplog)
    await scene.renew()
    await scene.log.suspect([ME], 7)

    async def too_late(node: str) -> bool:
        await scene.log.expel({node: 7})
        return False

    monkeypatch.setattr(scene.log, "readmit", too_late)
    await scene.renew(after_ms=500)
    assert scene.told == ["node.forgotten"]
    assert scene.log.nodes[ME].suspicion is None


async def test_who_may_be_there_has_no_name_to_tell(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene(caplog)

    async def somebody() -> bool:
        return True

    scene.spread._unlisted = somebody
    await scene.settle(1)
    assert scene.told == []
