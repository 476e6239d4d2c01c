"""Cached speed without stale answers: leases on a log of changes.

Every change that a verdict depends on is numbered, in the transaction that makes it, by a counter
whose row stays locked until the commit: whoever sees change 8 sees 7 too. A node answers from its
cache only while it holds a lease. To get one it reads the log and drops what the changes since
touched; the lease counts 2 s from before that read was sent:

    node A   read log: 7 ─────────── lease 2 s ───────────▶ read log: 8, drop `key:k` …
    node B        │ revoke: UPDATE …, log 8 `key:k`, COMMIT
                  │ ask over the bus ──▶ A drops `key:k` ──▶ acknowledges ──▶ "revoked"
                  │ no bus? A notes in its row what it read of the log ─────▶ "revoked"
                  └ no word at all ────────── A's lease is over: 2.25 s ────▶ "revoked"

A log can go back: a failover, or a crash, may lose the last commits, and the next change gets the
number of a lost one. So each has a random mark as well, and a node that has read change 7 is told
the mark of 7: another one than it knows, or none, and it drops its whole cache and begins anew.

    node A   has read 7 (mark 31) ──────────────────── read log: 8, and 7 has mark 54: drop all
    log      … 6, 7 (31) ✗ lost    6, 7 (54) `key:k`, 8 …

The database decides, the bus only hurries: lost, late, doubled and reordered messages, a Redis
that was flushed, failed over or is split in two make receipts slower, and nothing else.

Whom a change waits for
=======================
A node is written down as a member before its first lease. A change reads the members *after* its
commit: a node that is missing there joined later, so its first read of the log shows the change.

    member ──(did not acknowledge in time)──▶ suspected ──(still, a lease later)──▶ gone
      ▲                                           │                                  │
      └──── at its next read it says: I am here ──┘         joins anew, with no cache┘

A suspected node takes no lease before it has said that it is there. So once it has been suspected
for a whole lease, it holds none and may be forgotten: what was killed slows nobody for long.

Without a lease every check first reads the log; when the database is lost that raises Unavailable,
and the answer is 503 (or, where the operator declared it, what is cached goes on for a while).

Whoever ends what has ended already
===================================
Another one may have ended it just now, and wait still, or was killed before it told anybody: then
a node may have a lease from before, and the second receipt must not come sooner than the first.
So it is a change once more, numbered and waited for; but not where it ended so long ago that every
lease of then is over (`settled_before`).

A process beside the nodes, the command above all, has no cache and is no member (`NoLease`); its
changes are logged, asked and waited for like all others.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import msgspec

from keybearer.domain.changes import Change, Member, News
from keybearer.domain.ports import Transaction

LEASE_MS = 2_000
RENEW_MS = 500
SLACK_MS = 250
"""Clocks of two processes differ: in where a millisecond begins, and in how fast they run. NTP may
slow one down by a twelfth while it sets it right; this is an eighth of a lease."""
CLOCKS_MS = 60_000
"""What the wall clocks of two machines, and an instant and its commit, differ by at the most."""


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """How a change ended: how many nodes had to stop, and how long that took."""

    nodes: int
    waited_ms: int


NOBODY = Receipt(nodes=0, waited_ms=0)
"""Of what touches nothing that a check goes by."""


def settled_before(now: int, lease_ms: int) -> int:
    """The instant before which a change is settled, whether or not anybody was told of it.

    Args:
        now: by the wall clock, as the instant with which the change is written down.
        lease_ms: the longest lease that a node can have.
    """
    return now - lease_ms - SLACK_MS - CLOCKS_MS


class Log(Protocol):
    """The changes and the members, in the database. Every method raises Unavailable."""

    async def append(self, tx: Transaction, tags: tuple[str, ...], origin: str) -> int:
        """Numbers a change in its own transaction."""
        ...

    async def news(self, node: str, after: int | None) -> News:
        """The state of the log, and the changes after one, whose mark it tells; None asks for no
        changes.
        """
        ...

    async def members(self) -> Sequence[Member]:
        """Every member."""
        ...

    async def join(self, member: Member) -> None:
        """Writes a node down as a member, not suspected."""
        ...

    async def readmit(self, node: str) -> bool:
        """Takes the suspicion from a member; False if it is none any more."""
        ...

    async def note(self, node: str, seq: int, mark: int | None) -> None:
        """Notes that a member has applied every change up to one, if that still has this mark."""
        ...

    async def suspect(self, nodes: Iterable[str], mark: int) -> None:
        """Notes whose answer was missed, unless they are suspected already."""
        ...

    async def expel(self, suspects: Mapping[str, int]) -> None:
        """Forgets members that are suspected, each still under that mark."""
        ...

    async def leave(self, node: str) -> None:
        """Forgets a member that answers no more."""
        ...


class Bus(Protocol):
    """Carries changes to the nodes and acknowledgements back, as well as it can."""

    async def publish(self, change: Change) -> None:
        """Asks every node; a message that cannot be sent is none."""
        ...

    def acknowledge(self, changes: Sequence[Change]) -> None:
        """Tells those who asked that they are applied here; nobody waits for that."""
        ...


class NoBus:
    """One process serves: nobody is asked."""

    async def publish(self, change: Change) -> None:
        """Nothing."""

    def acknowledge(self, changes: Sequence[Change]) -> None:
        """Nothing."""
