"""Hash and check passwords in a small, bounded thread pool.

    caller ──> [ queue: at most 64 wait ] ──> 1 or 2 threads ──> Argon2id, 19 MiB, about 20 ms
                        │ full
                        └──> Overloaded: 503 with Retry-After, at once

A login storm fills this queue and nothing else: the threads leave a core to the requests that
carry keys, and what can't be hashed soon is refused soon.
"""

import asyncio
import logging
import os
from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import TypeVar, TypeVarTuple

import argon2
import msgspec
from argon2.low_level import error_to_str

from keybearer.adapters import foreignhashes
from keybearer.domain.errors import Unavailable

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

log = logging.getLogger("keybearer")

_SALT_BYTES = 16
_HASH_BYTES = 32
_NO_ROOM = frozenset(
    error_to_str(code)
    for code in (-22, -33)  # ARGON2_MEMORY_ALLOCATION_ERROR, ARGON2_THREAD_FAIL
)
"""What Argon2 says where the machine has no memory or no thread left: no word about the hash."""


class Overloaded(Unavailable):
    """More passwords wait than the pool will hash soon: 503, try again in a second."""


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What one hash costs: memory in KiB, passes over it, lanes in parallel.

    The default is the OWASP Password Storage Cheat Sheet's for Argon2id.
    """

    memory_kib: int = 19 * 1024
    passes: int = 2
    lanes: int = 1


class Hasher:
    """Argon2id (RFC 9106) behind a bounded queue; usable from any event loop.

    Args:
        threads: how many hash at once; None is one less than there are cores, 1 or 2.
        queue: how many may wait beside them before `Overloaded`.
        cost: what a new hash costs; old ones are still checked, see `needs_rehash`.
    """

    def __init__(
        self, *, threads: int | None = None, queue: int = 64, cost: Cost | None = None
    ) -> None:
        threads = threads or max(1, min(2, (os.cpu_count() or 1) - 1))
        cost = cost or Cost()
        self._argon2 = argon2.PasswordHasher(
            time_cost=cost.passes,
            memory_cost=cost.memory_kib,
            parallelism=cost.lanes,
            hash_len=_HASH_BYTES,
            salt_len=_SALT_BYTES,
            type=argon2.Type.ID,
        )
        self._nobody = _dummy(cost)
        self._inside = 0  # who hashes or waits
        self._threads = threads
        self._most = threads + queue
        self._soon = threads + queue // 8
        self._counting = Lock()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="keybearer-passwords")

    @property
    def busy(self) -> bool:
        """Whether more wait than will have their turn soon: what can do without gives way."""
        return self._inside > self._soon

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        return max(0, self._inside - self._threads)

    async def hash(self, password: str) -> str:
        """A new hash with a fresh salt, in the PHC string format.

        Raises Overloaded, or Unavailable where there is no memory for it.
        """
        return await self.run(self._hash, _bytes(password))

    async def check(self, hashed: str, credential: bytes) -> bool:
        """Whether bytes are those that were hashed, here or elsewhere; as `verify`."""
        return await self.run(self._verify, hashed, credential)

    async def verify(self, hashed: str | None, password: str, *, like: str | None = None) -> bool:
        """Whether `password` is the one that was hashed, here or elsewhere.

        With None, for an account that isn't there, the same work is done and the answer is no:
        the time doesn't tell who has an account.

        Args:
            like: a hash whose work is done where `hashed` is None; else that of one of ours.

        No password is right for what is no hash.

        Raises Overloaded, or Unavailable where there is no memory for it.
        """
        right = await self.run(self._verify, hashed or like or self._nobody, _bytes(password))
        return right and hashed is not None

    def needs_rehash(self, hashed: str) -> bool:
        """Whether a hash that `verify` said yes to was made elsewhere, or at another cost."""
        return not hashed.startswith("$argon2id$") or self._argon2.check_needs_rehash(hashed)

    async def run(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        """Call something else that is heavy on the CPU (zxcvbn) in the same pool and queue.

        Raises Overloaded, and whatever `function` raises.
        """
        with self._counting:
            if self._inside == self._most:
                raise Overloaded("too many passwords wait to be hashed")
            self._inside += 1
        try:
            work = self._pool.submit(function, *args)
        except RuntimeError:
            self._leave()
            raise Unavailable("the password pool is closed") from None
        # The place is free when the work is over, not when its caller goes away: who hangs up
        # during a hash still costs us the rest of it.
        work.add_done_callback(self._leave)
        return await asyncio.wrap_future(work)

    def close(self) -> None:
        """Drop what waits, and wait for what is being hashed (tens of milliseconds)."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _leave(self, _: Future[T] | None = None) -> None:
        with self._counting:
            self._inside -= 1

    def _hash(self, password: bytes) -> str:
        try:
            return self._argon2.hash(password)
        except argon2.exceptions.HashingError:
            raise Unavailable("a password could not be hashed") from None

    def _verify(self, hashed: str, password: bytes) -> bool:
        right = self._is_right(hashed, password)
        if right is None:
            # It would never be right, so no other answer is worth waiting for; and it is given as
            # late as for nobody, whom another's broken hash may stand in for.
            log.warning("password.hash_unreadable")
            self._is_right(self._nobody, password)
        return bool(right)

    def _is_right(self, hashed: str, password: bytes) -> bool | None:
        """None where the hash cannot be read."""
        if not hashed.startswith("$argon2"):
            return foreignhashes.check(hashed, password)
        try:
            return self._argon2.verify(hashed, password)
        except argon2.exceptions.VerifyMismatchError:
            return False
        except argon2.exceptions.VerificationError as error:
            if str(error) in _NO_ROOM:
                raise Unavailable("a password could not be checked against its hash") from None
            return None
        except ValueError:  # InvalidHashError, and text that is not ASCII
            return None


def _bytes(password: str) -> bytes:
    # A lone surrogate is no reason to fail: the domain's rules decide what a password may be.
    return password.encode("utf-8", "surrogatepass")


def _dummy(cost: Cost) -> str:
    """A hash of nothing in particular; nobody knows a password to it."""
    salt, digest = (b64encode(bytes(n)).decode().rstrip("=") for n in (_SALT_BYTES, _HASH_BYTES))
    return f"$argon2id$v=19$m={cost.memory_kib},t={cost.passes},p={cost.lanes}${salt}${digest}"
