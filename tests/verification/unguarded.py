"""The parts of the protocol, each without one of its guards: so that the search has to find it."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from keybearer.domain.changes import Change, Member, News
from keybearer.domain.errors import Unavailable
from keybearer.domain.model import Kind, Refusal
from keybearer.domain.ports import Transaction
from keybearer.verification.cache import Cache, Entry
from keybearer.verification.coherence import LEASE_MS, Receipt
from keybearer.verification.finder import Finder
from keybearer.verification.lease import Lease, NoLease
from keybearer.verification.presented import Presented
from keybearer.verification.spread import Spread
from keybearer.verification.verifier import Verifier
from tests.verification.world import ANY, Guards, MemoryLog, Wire

# --- the check -------------------------------------------------------------------------------


class KeepsEveryFill(Cache):
    def put(self, digest: bytes, entry: Entry, *, begun: int) -> bool:
        return super().put(digest, entry, begun=self.generation)


class _JoinsAny(Finder):
    async def find(self, digest: bytes, presented: Presented, kind: Kind | None) -> Entry | Refusal:
        flight = self._flights.get((digest, kind))
        if flight is not None:
            await self._lease.hold()
            return await asyncio.shield(flight[1]) or self._refused(presented)
        return await super().find(digest, presented, kind)


class JoinsAnyFlight(Verifier):
    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self._finder.__class__ = _JoinsAny


class NeedsNoLease(Verifier):
    async def check(self, presented: Any, ip: Any, *args: Any, **options: Any) -> Any:
        until, self.lease.until = self.lease.until, 1 << 60
        coroutine = super().check(presented, ip, *args, **options)
        try:
            return await coroutine
        finally:
            if self.lease.until == 1 << 60:
                self.lease.until = until


# --- the lease -------------------------------------------------------------------------------


class IsNotLookedAtAgain(Lease):
    async def hold(self) -> None:
        if self._clock.now() >= self.until:
            await self.renew()


class CountsFromAfterTheRead(Lease):
    async def _renew(self) -> None:
        await super()._renew()
        self.until = self._clock.now() + LEASE_MS


class AppliesNothing(Lease):
    async def _renew(self) -> None:
        begun = self._clock.now()
        news = await self._news()
        self._known, self._mark = news.seq, news.mark
        self.until = begun + LEASE_MS


class SeesNoGap(Lease):
    def _is_gapless(self, news: News) -> bool:
        return True


class SeesNoMark(Lease):
    def _is_gapless(self, news: News) -> bool:
        return super()._is_gapless(msgspec.structs.replace(news, mark_after=self._mark))


class KnowsWhatItHeard(Lease):
    """With a mark that fits, or the log would seem to have gone back."""

    only_heard = False

    def heard(self, change: Change) -> None:
        super().heard(change)
        self._known, self.only_heard = change.seq, True

    def _is_gapless(self, news: News) -> bool:
        if self.only_heard:
            self._mark, self.only_heard = news.mark_after, False
        return super()._is_gapless(news)


class NotesWhatItHeard(Lease):
    def heard(self, change: Change) -> None:
        super().heard(change)
        task = asyncio.ensure_future(self._log.note(self._me.id, change.seq, ANY))
        task.add_done_callback(lambda task: task.cancelled() or task.exception())


class NotesBeforeItApplies(Lease):
    async def _news(self) -> News:
        news = await super()._news()
        await self._log.note(self._me.id, news.seq, news.mark)
        return news


class ActsUnderSuspicion(Lease):
    async def _news(self) -> News:
        while True:
            news = await self._log.news(self._me.id, self._known)
            if news.member is not None:
                return news
            self._cache.clear()
            self._known = None
            await self._log.join(self._me)


class AsksInVainToBeReadmitted(Lease):
    async def _news(self) -> News:
        while True:
            news = await self._log.news(self._me.id, self._known)
            if news.member is not None:
                if news.member.suspicion is not None:
                    await self._log.readmit(self._me.id)
                return news
            self._cache.clear()
            self._known = None
            await self._log.join(self._me)


class JoinsLater(Lease):
    async def _news(self) -> News:
        news = await self._log.news(self._me.id, self._known)
        if news.member is None:
            task = asyncio.ensure_future(self._log.join(self._me))
            task.add_done_callback(lambda task: task.cancelled() or task.exception())
        return news


class DoesNotEnd(Lease):
    def end(self) -> None:
        self.until = 0


class StretchesFromNow(Lease):
    def _stretch(self) -> None:
        if self._read_at is not None and not self._ended:
            self.until = self._clock.now() + self._me.lease_ms


class KeepsItsFlights(NoLease):
    async def hold(self) -> None:
        return None


# --- the change ------------------------------------------------------------------------------


class ReadsTheMembersBeforeTheCommit(Spread):
    async def announce(self, tx: Transaction, tags: tuple[str, ...]) -> Change:
        self._before = await super().members()
        return await super().announce(tx, tags)

    async def _ask(self, change: Change) -> Sequence[Member]:
        await super()._ask(change)
        return self._before


class CountsFromBeforeTheCommit(Spread):
    async def announce(self, tx: Transaction, tags: tuple[str, ...]) -> Change:
        change = await super().announce(tx, tags)
        self._announced = {**getattr(self, "_announced", {}), change.seq: self._clock.now()}
        return change

    async def _wait(
        self, asked: Any, seq: int, committed: int, others: Sequence[Member]
    ) -> Sequence[str]:
        return await super()._wait(asked, seq, self._announced[seq], others)


class TakesLostMembersForNone(Spread):
    async def _ask(self, change: Change) -> Sequence[Member]:
        try:
            return await super()._ask(change)
        except Unavailable:
            return ()


class DoesNotWaitForSuspects(Spread):
    async def _ask(self, change: Change) -> Sequence[Member]:
        return [each for each in await super()._ask(change) if each.suspicion is None]


class TakesAnyAnswer(Spread):
    def acknowledged(self, seq: int, node: str) -> None:
        for asked in list(self._asked):
            super().acknowledged(asked, node)


class KeepsItsOwnEntries(Spread):
    async def settle(self, change: Change) -> Receipt:
        return await super().settle(msgspec.structs.replace(change, tags=()))


class ExpelsAtOnce(Spread):
    async def look_after_members(self) -> None:
        marks = {each.id: each.suspicion for each in await self.members()}
        over = {id: mark for id, mark in marks.items() if mark is not None}
        if over:
            await self._log.expel(over)


# --- the log and the bus ---------------------------------------------------------------------


class HasOneMark(MemoryLog):
    async def suspect(self, nodes: Iterable[str], mark: int) -> None:
        await super().suspect(nodes, 1)


class ExpelsUnderAnyMark(MemoryLog):
    async def expel(self, suspects: Mapping[str, int]) -> None:
        def happen() -> None:
            for node in suspects:
                self.world.members.pop(node, None)

        await self.world.call(self.by, happen, "expel")


class KeepsTheStalenessSecret(MemoryLog):
    async def join(self, member: Member) -> None:
        await super().join(msgspec.structs.replace(member, lease_ms=LEASE_MS))


class AnswersBeforeItApplies(Wire):
    def _take_change(self, change: Change) -> None:
        if change.origin != self._node:
            self.acknowledge([change])
            asyncio.get_running_loop().call_later(0.02, self._heard, change)


class AnswersWithoutApplying(Wire):
    def _take_change(self, change: Change) -> None:
        if change.origin != self._node:
            self.acknowledge([change])


UNGUARDED = {
    "fills: the generation": ("slow database", Guards(cache=KeepsEveryFill)),
    "flights: the generation": ("slow database", Guards(verifier=JoinsAnyFlight)),
    "flights of a visitor": ("slow database", Guards(no_lease=KeepsItsFlights)),
    "the lease": ("lossy bus", Guards(verifier=NeedsNoLease)),
    "a lease from before the read": ("slow database", Guards(lease=CountsFromAfterTheRead)),
    "what the log shows": ("lossy bus", Guards(lease=AppliesNothing)),
    "what the log shows no more": ("busy", Guards(lease=SeesNoGap)),
    "what was heard is not known": ("lossy bus", Guards(lease=KnowsWhatItHeard)),
    "what was heard is not noted": ("lossy bus", Guards(lease=NotesWhatItHeard)),
    "to apply before it is noted": ("slow database", Guards(lease=NotesBeforeItApplies)),
    "readmission": ("expulsions", Guards(lease=ActsUnderSuspicion)),
    "membership": ("restarts", Guards(lease=JoinsLater)),
    "the end": ("restarts", Guards(lease=DoesNotEnd)),
    "staleness from the read": ("partitions", Guards(lease=StretchesFromNow)),
    "staleness that others know": ("partitions", Guards(log=KeepsTheStalenessSecret)),
    "members of after the commit": ("slow database", Guards(spread=ReadsTheMembersBeforeTheCommit)),
    "the wait from after the commit": ("slow database", Guards(spread=CountsFromBeforeTheCommit)),
    "members that are not known": ("lossy database", Guards(spread=TakesLostMembersForNone)),
    "suspects": ("expulsions", Guards(spread=DoesNotWaitForSuspects)),
    "the number of an answer": ("lossy bus", Guards(spread=TakesAnyAnswer)),
    "our own entries": ("lossy bus", Guards(spread=KeepsItsOwnEntries)),
    "patience with suspects": ("absences", Guards(spread=ExpelsAtOnce)),
    "a new mark": ("expulsions", Guards(log=HasOneMark)),
    "to apply first": ("lossy bus", Guards(bus=AnswersBeforeItApplies)),
    "to apply": ("lossy bus", Guards(bus=AnswersWithoutApplying)),
    "numbers under a lock": ("busy", Guards(numbered_under_a_lock=False)),
    "what is ended again": ("repeats", Guards(told_again=False)),
}
"""What is missing, the weather in which that is met soonest, and the parts without it."""
