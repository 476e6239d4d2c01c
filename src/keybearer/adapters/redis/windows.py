"""The sliding windows of all processes, counted in Redis: one script, one round trip.

`SCRIPT` does what `domain.limits.SlidingWindow` does, on the same grid of 64 pieces, by the time
of Redis: the clocks of our machines play no part. A key of Redis has one window, so a cluster
spreads them; it expires when nothing of it counts any more.

    keybearer:<database>:limit:{<key>}   a hash of 4 + at most 65 numbers
        w  the window in ms      p  the piece of the last change     u  what counts
        o  no older piece counts anything                            0…64  the ring

A call reads four of these and writes five. Pieces that fall out are read and dropped once, so that
the work is the same however long the window is.

Calls that come in the same turn of the event loop travel together, and so do those that come while
two flights are under way. So a Redis that stands still for a moment holds two connections, and not
one for each turn of the loop; and the more is asked, the more goes in one round trip.
"""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

from redis.exceptions import NoScriptError, ResponseError

from keybearer.adapters.redis.connection import ERRORS, Restarts, Server, check, close, connect
from keybearer.domain.errors import Unavailable
from keybearer.domain.limits import Take
from keybearer.domain.model import RateLimit

PATIENCE_SECONDS = 0.25
"""How long a request waits for Redis: fifty times what a round trip takes, and hardly felt."""

FLIGHTS = 2
"""Round trips under way at once: while Redis counts for one, the answers of the other are told."""

_TIME = """local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)"""

SCRIPT = (
    """
local key = KEYS[1]
local window, maximum, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local given = tonumber(ARGV[4])  -- the instant of what is given back; none for a take
"""
    + _TIME
    + """
local function pieces_of(window)
  if window <= 64 then return window, window end
  return 64, 65
end
local pieces, keep = pieces_of(window)
local function piece_of(instant)
  local n = instant * pieces
  return (n - math.fmod(n, window)) / window
end
local function first_of(piece, window, pieces) return math.ceil(piece * window / pieces) end
local function begin(piece) return first_of(piece, window, pieces) end
local function count(piece) return tonumber(redis.call('HGET', key, piece % keep)) or 0 end

-- what is known, and where it stands now

local known = redis.call('HMGET', key, 'w', 'p', 'u', 'o')
local piece, used, oldest = tonumber(known[2]), tonumber(known[3]) or 0, tonumber(known[4])
local changed = false

local function gather(at)  -- all that counts, as if it had come in one piece
  redis.call('DEL', key)
  redis.call('HSET', key, at % keep, used)
  piece, oldest, changed = at, at, true
end

if used > 0 and tonumber(known[1]) ~= window then  -- the limit was edited
  local then_window = tonumber(known[1])
  gather(piece_of(first_of(piece + 1, then_window, (pieces_of(then_window))) - 1))
end

local here = piece_of(now)
if used == 0 then
  piece, oldest = here, here
elseif now < begin(piece) - math.max(window, 60000) then  -- the clock was set back
  gather(here)
elseif here - piece >= keep then
  redis.call('DEL', key)
  piece, oldest, used, changed = here, here, 0, true
elseif here > piece then
  local gone = {}
  for passed = oldest, here - keep do gone[#gone + 1] = passed % keep end
  if #gone > 0 then
    for _, amount in ipairs(redis.call('HMGET', key, unpack(gone))) do
      used = used - (tonumber(amount) or 0)
    end
    redis.call('HDEL', key, unpack(gone))
    oldest = here - keep + 1
  end
  piece, changed = here, true
end

-- what is asked

local function put(at, amount)
  redis.call('HINCRBY', key, at % keep, amount)
  used, changed = used + amount, true
  if at < oldest then oldest = at end
end

for i = 5, #ARGV, 2 do  -- what was accepted while Redis was away: ages and amounts
  local at = math.min(piece, piece_of(math.max(0, math.max(now, begin(piece)) - ARGV[i])))
  if at > piece - keep then put(at, tonumber(ARGV[i + 1])) end
end

local accepted = 0
if given then
  local at, left = math.min(piece, piece_of(given)), cost
  while left > 0 and at > piece - keep do
    local back = math.min(left, count(at))
    if back > 0 then put(at, -back) end
    left, at = left - back, at - 1
  end
elseif cost > 0 and cost <= maximum - used then
  accepted = 1
  put(piece, cost)
end

-- the answer

local function freed(amount)
  if amount <= 0 or used == 0 then return 0 end
  local at = oldest - 1
  repeat
    at = at + 1
    amount = amount - count(at)
  until amount <= 0 or at >= piece
  return begin(at + keep) - now
end

while used > 0 and oldest < piece and count(oldest) == 0 do
  oldest, changed = oldest + 1, true
end
if changed then
  if used == 0 then
    redis.call('DEL', key)
  else
    redis.call('HSET', key, 'w', window, 'p', piece, 'u', used, 'o', oldest)
    redis.call('PEXPIRE', key,
      string.format('%.0f', math.min(begin(piece + keep) - now, 9007199254740991)))
  end
end
local wait
if cost > maximum then
  wait = math.max(window, freed(1))
else
  wait = freed(used + cost - maximum)
end
return {accepted, math.max(0, maximum - used), wait, freed(math.min(1, used)), now}
"""
)


class _Call(NamedTuple):
    arguments: tuple[str | int, ...]
    answer: "asyncio.Future[list[int]]"


class RedisWindows:
    """The windows of all processes that share a database and a Redis.

    Args:
        url: REDIS_URL in any of its forms.
        database: the id of the database, so that several may share a Redis.
        now: our own clock, in milliseconds.

    Raises:
        Misuse: the URL is none.
    """

    def __init__(self, url: str, database: str, now: Callable[[], int]) -> None:
        self._url = url
        self._prefix = f"keybearer:{database}:limit:"
        self._restarts = Restarts(now)
        self._client = connect(url, self._restarts)
        self._sha = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()
        self._waiting: list[_Call] = []
        self._flights: set[asyncio.Task[None]] = set()

    @property
    def forgot_at(self) -> int:
        """When a Redis that we knew was last started anew, on our own clock; 0 for never."""
        return self._restarts.at

    async def check(self) -> Server:
        """Whether it can be relied on, and counts.

        Raises:
            Misuse: it evicts, or is not what the URL says.
            Unavailable: it cannot be reached, or takes no writes.
        """
        server = await check(self._client, self._url)
        await self.add("probe", RateLimit(maximum=0, window_ms=1), [(0, 1)])
        return server

    async def take(self, id: str, limit: RateLimit, cost: int) -> Take:
        """Takes from the window of a key, or changes nothing.

        Raises:
            Unavailable: no answer in time; it may have been counted.
        """
        accepted, remaining, wait, reset, at = await self._ask(id, limit, cost, "")
        return Take(
            accepted=bool(accepted),
            remaining=remaining,
            retry_after_ms=wait,
            reset_after_ms=reset,
            at=at,
            shared=True,
        )

    async def give_back(self, id: str, limit: RateLimit, cost: int, at: int) -> None:
        """Undoes a `take` that was accepted at `at`.

        Raises:
            Unavailable: no answer in time; it may have been given back.
        """
        await self._ask(id, limit, cost, at)

    async def add(self, id: str, limit: RateLimit, ages: Sequence[tuple[int, int]]) -> None:
        """Counts what was accepted elsewhere: how many milliseconds ago, and how much.

        Raises:
            Unavailable: no answer in time; it may have been counted.
        """
        await self._ask(id, limit, 0, "", *(number for pair in ages for number in pair))

    async def close(self) -> None:
        """Ends the connections; whoever still waits is told that Redis is away."""
        self._give_up("stopped")
        for flight in [*self._flights]:
            flight.cancel()
        await asyncio.gather(*self._flights, return_exceptions=True)
        await close(self._client)

    # --- calls travel together ---

    async def _ask(
        self, id: str, limit: RateLimit, cost: int, given: int | str, *pairs: int
    ) -> list[int]:
        loop = asyncio.get_running_loop()
        # The braces are a cluster's: what stands in them alone chooses the node.
        key = f"{self._prefix}{{{id}}}"
        arguments = (1, key, limit.window_ms, limit.maximum, cost, given, *pairs)
        call = _Call(arguments, loop.create_future())
        self._waiting.append(call)
        if len(self._waiting) == 1:
            loop.call_soon(self._depart)
        return await call.answer

    def _depart(self) -> None:
        if self._waiting and len(self._flights) < FLIGHTS:
            calls, self._waiting = self._waiting, []
            flight = asyncio.create_task(self._travel(calls))
            self._flights.add(flight)
            flight.add_done_callback(self._arrive)

    def _arrive(self, flight: "asyncio.Task[None]") -> None:
        self._flights.discard(flight)
        self._depart()

    def _give_up(self, reason: str) -> None:
        """Tells whoever has not departed yet."""
        calls, self._waiting = self._waiting, []
        for call in calls:
            _tell(call, reason)

    async def _travel(self, calls: list[_Call]) -> None:
        answers: list[object] = ["stopped"] * len(calls)
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                answers = await self._run("EVALSHA", self._sha, calls)
                unknown = [
                    number
                    for number, answer in enumerate(answers)
                    if isinstance(answer, NoScriptError)
                ]
                if unknown:  # Redis was started anew; the script goes along once
                    again = await self._run("EVAL", SCRIPT, [calls[number] for number in unknown])
                    for number, answer in zip(unknown, again, strict=True):
                        answers[number] = answer
        except ERRORS as error:
            # Those that Redis has counted before the error are told that it is away as well:
            # they are counted twice then.
            answers = [type(error).__name__] * len(calls)
            self._give_up(type(error).__name__)  # nobody waits a second time for a lost Redis
        finally:
            for call, answer in zip(calls, answers, strict=True):
                _tell(call, answer)

    async def _run(self, command: str, script: str, calls: list[_Call]) -> list[object]:
        if len(calls) == 1:  # a pipeline for one costs half as much again
            try:
                return [await self._client.execute_command(command, script, *calls[0].arguments)]
            except ResponseError as error:
                return [error]
        pipeline = self._client.pipeline(transaction=False)
        for call in calls:
            pipeline.execute_command(command, script, *call.arguments)
        answers: list[object] = await pipeline.execute(raise_on_error=False)
        return answers


def _tell(call: _Call, answer: object) -> None:
    if call.answer.done():
        return  # whoever asked is gone
    if isinstance(answer, list):
        call.answer.set_result(answer)
    else:
        said = answer if isinstance(answer, str) else type(answer).__name__
        call.answer.set_exception(Unavailable(f"Redis counts no limits ({said})"))
