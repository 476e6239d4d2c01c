"""What is done to the nodes, one thing after the other; each is undone when its time is over.

paused       SIGSTOP, for less than a lease and for longer
killed       kill -9, and started anew; or stopped in an orderly way
cut off      from Redis, from PostgreSQL, or both; each refused, silent or deaf (wires.py)
Redis        killed and started anew, or paused
"""

import random
import signal
import time
from collections.abc import Callable, Sequence

from tests.soak.nodes import Node, Site
from tests.soak.wires import Cut, Wire

CUTS: Sequence[Cut] = ("refused", "silent", "deaf")
SECONDS = (0.1, 0.7, 2.5, 3.0, 4.0)
"""How long something lasts: a lease is two seconds."""


class Weather:
    """The weather of one round.

    Args:
        seconds: how long something lasts, one of these.
        healthy: how many nodes nothing is done to, at any time.
        pause: seconds between one thing and the next, at the most.
    """

    def __init__(
        self,
        site: Site,
        seed: int,
        *,
        seconds: Sequence[float] = SECONDS,
        healthy: int = 1,
        pause: float = 0.7,
    ) -> None:
        self._site = site
        self._chance = random.Random(seed)  # noqa: S311 -- nothing to guess here
        self._seconds = seconds
        self._healthy = healthy
        self._pause_at_most = pause
        self._undo: list[tuple[float, Callable[[], None]]] = []
        self._kinds: list[tuple[int, str, Callable[[], None]]] = [
            (2, "cut off from both", self._cut_both),
            (8, "killed", self._kill),
            (3, "paused", self._pause),
            (1, "cut off from PostgreSQL", self._cut_postgres),
            (1, "cut off from Redis", self._cut_redis),
            (1, "stopped", self._stop),
            (1, "Redis killed", self._kill_redis),
            (1, "Redis paused", self._pause_redis),
        ]
        # One of each first, so that a short time sees them, too, and as long as can be; taken from
        # the end.
        self._next = [(name, do) for _, name, do in reversed(self._kinds)]
        self._first = True
        self._redis_hurt_until = 0.0

    def blow(self, until: float) -> None:
        """Goes on until then, by the monotonic clock, and until each had its turn."""
        while time.monotonic() < until or (self._first and self._next):
            if not self._next:
                self._first = False
                self._next = [(name, do) for times, name, do in self._kinds for _ in range(times)]
                self._chance.shuffle(self._next)
            name, do = self._next.pop()
            try:
                do()
                self._site.events[name] += 1
            except _NobodyIsLeft:
                self._next.insert(0, (name, do))
            self._wait(self._chance.uniform(0.05, self._pause_at_most))

    def calm(self) -> None:
        """Undoes what was done; returns when all is well again."""
        self._wait(0, everything=True)
        for node in self._site.nodes:
            node.wait()

    def _wait(self, seconds: float, *, everything: bool = False) -> None:
        until = time.monotonic() + seconds
        while self._undo:
            at, undo = min(self._undo, key=lambda each: each[0])
            if at > until and not everything:
                break
            self._undo.remove((at, undo))
            time.sleep(0 if everything else max(0.0, at - time.monotonic()))
            undo()
        time.sleep(max(0.0, until - time.monotonic()))

    def _for(self, seconds: float, undo: Callable[[], None]) -> None:
        self._undo.append((time.monotonic() + seconds, undo))

    def _one(self, seconds: float) -> Node:
        now = time.monotonic()
        # Who starts without its database ends: that is no weather to look at.
        well = [node for node in self._site.nodes if node.hurt_until < now and node.serves()]
        if len(well) <= self._healthy:
            raise _NobodyIsLeft
        node = self._chance.choice(well)
        node.hurt_until = now + seconds + 0.5
        node.hurts.append((int(now * 1e9), int(node.hurt_until * 1e9)))
        return node

    def _lasting(self) -> float:
        return max(self._seconds) if self._first else self._chance.choice(self._seconds)

    # --- what is done ---

    def _pause(self) -> None:
        seconds = self._lasting()
        node = self._one(seconds)
        node.signal(signal.SIGSTOP)
        self._for(seconds, lambda: node.signal(signal.SIGCONT))

    def _kill(self) -> None:
        node = self._one(4)
        node.losses += 1
        self._start_again(node)

    def _stop(self) -> None:
        node = self._one(6)
        node.losses += 1
        node.stop()
        self._for(2, lambda: self._start_again(node))  # with lines open it takes its time

    def _start_again(self, node: Node) -> None:
        node.kill()
        node.start()

    def _cut_redis(self) -> None:
        self._need_redis()
        seconds = self._lasting()
        self._cut(self._one(seconds).redis, seconds)

    def _cut_postgres(self) -> None:
        seconds = self._lasting()
        node = self._one(seconds)
        node.losses += 1
        self._cut(node.postgres, seconds)

    def _cut_both(self) -> None:
        self._need_redis()
        seconds = self._lasting()
        node = self._one(seconds)
        node.losses += 1
        self._cut(node.redis, seconds)
        self._cut(node.postgres, seconds)

    def _cut(self, wire: Wire, seconds: float) -> None:
        how, lost = self._chance.choice(CUTS), self._chance.random() < 0.5
        self._site.wires.cut(wire, how)
        self._site.events[f"wires {how}"] += 1
        self._for(seconds, lambda: self._site.wires.mend(wire, lost=lost))

    def _need_redis(self) -> None:
        if time.monotonic() < self._redis_hurt_until:
            raise _NobodyIsLeft

    def _kill_redis(self) -> None:
        self._need_redis()
        self._redis_hurt_until = time.monotonic() + 2
        self._site.redis.kill()
        self._for(self._chance.uniform(0.1, 1.5), self._site.redis.start)

    def _pause_redis(self) -> None:
        self._need_redis()
        seconds = self._chance.choice([0.3, 1.5, 3.0])
        self._redis_hurt_until = time.monotonic() + seconds + 0.5
        self._site.redis.pause()
        self._for(seconds, self._site.redis.go_on)


class _NobodyIsLeft(Exception):
    """To whom it could be done now."""
