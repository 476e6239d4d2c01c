"""How often somebody may try: paces, counted in the database.

Two things are counted, both in one statement each, so that guesses in parallel count exactly:

    pace       so many in a row, then evenly: what an address sends, what an inbox gets
    failures   wrong passwords of one account in a row (operations/authentication.py)

Buckets are named by keyed digest: the table tells nobody who was tried.
"""

import msgspec

from keybearer.adapters.sql import accounts
from keybearer.domain.credentials import PepperRing
from keybearer.domain.errors import Failure
from keybearer.domain.networks import throttle_bucket
from keybearer.domain.ports import Transaction
from keybearer.operations.declaration import Call

_MINUTE_MS = 60_000
_DAY_MS = 86_400_000


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """At most `times` at once, and `times` in every `within_ms` in the long run."""

    name: str
    times: int
    within_ms: int

    @property
    def interval(self) -> int:
        """Milliseconds from one to the next, in the long run."""
        return self.within_ms // self.times


# The long one is what makes a patient sprayer slow: 300 passwords a day from one address.
LOGIN = (
    Pace(name="login", times=50, within_ms=10 * _MINUTE_MS),
    Pace(name="login.day", times=300, within_ms=_DAY_MS),
)
SIGN_UP = (
    Pace(name="sign-up", times=100, within_ms=10 * _MINUTE_MS),
    Pace(name="sign-up.day", times=500, within_ms=_DAY_MS),
)
ASK_FOR_MAIL = (Pace(name="ask-for-mail", times=60, within_ms=10 * _MINUTE_MS),)
RESET = (Pace(name="reset", times=60, within_ms=10 * _MINUTE_MS),)
# A login is ended once as often as one likes. Once more it is a change for all, and of no use.
END_AGAIN = (Pace(name="end-again", times=100, within_ms=10 * _MINUTE_MS),)
INBOX = (
    Pace(name="inbox", times=3, within_ms=_MINUTE_MS),
    Pace(name="inbox.day", times=20, within_ms=_DAY_MS),
)


def bucket(ring: PepperRing, name: str, value: str) -> bytes:
    """The name of a bucket in the table."""
    return ring.digest(f"throttle {name} {value}".encode())


def here(call: Call) -> str:
    """The bucket of where the call comes from: an IPv4 address or an IPv6 /64."""
    return throttle_bucket(call.facts.ip)


async def pace(call: Call, tx: Transaction, paces: tuple[Pace, ...], value: str) -> int | None:
    """Counts one more of `value`, or counts nothing and gives how many milliseconds to wait."""
    for n, each in enumerate(paces):
        wait = await accounts.count_pace(
            tx,
            bucket(call.app.ring, each.name, value),
            now=call.now,
            interval=each.interval,
            burst=each.interval * each.times,
        )
        if wait is not None:
            await take_back(call, tx, paces[:n], value)
            return wait
    return None


async def take_back(call: Call, tx: Transaction, paces: tuple[Pace, ...], value: str) -> None:
    """Takes one back that was counted."""
    for each in paces:
        await accounts.take_back_pace(
            tx, bucket(call.app.ring, each.name, value), interval=each.interval
        )


async def limit_here(call: Call, tx: Transaction, paces: tuple[Pace, ...]) -> None:
    """Counts one more from where the call comes.

    Raises:
        Failure: TOO_MANY_ATTEMPTS; the transaction that it ends counts nothing.
    """
    wait = await pace(call, tx, paces, here(call))
    if wait is not None:
        raise too_many(wait)


def too_many(wait: int) -> Failure:
    """The refusal of an attempt that comes `wait` milliseconds too soon."""
    if wait > _DAY_MS:
        return Failure(
            "TOO_MANY_ATTEMPTS",
            "Too many attempts. Set a new password with the link that “Forgot password” mails.",
            retry_after_ms=_DAY_MS,
        )
    return Failure("TOO_MANY_ATTEMPTS", retry_after_ms=wait)
