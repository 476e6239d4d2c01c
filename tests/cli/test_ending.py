"""A worker ends at the first signal, and not before it serves; the parent forgets none."""

import asyncio
import os
import signal
import threading
from collections.abc import Iterator

import pytest
from granian import _granian
from starlette.types import Message, Receive, Scope, Send

from keybearer.cli.ending import STOPS, Ending, Wake, end_at_once
from tests.cli.command import Shell


class Stop:
    """granian's event, as far as it bears: once."""

    def __init__(self) -> None:
        self.times = 0

    def set(self) -> None:
        self.times += 1


@pytest.fixture(autouse=True)
def handlers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(_granian, "WorkerSignal", Stop)
    before = [signal.getsignal(each) for each in STOPS]
    yield
    for each, handler in zip(STOPS, before, strict=True):
        signal.signal(each, handler)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


class Life:
    """A server that starts the app and lets it stand."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.ending = Ending(app)
        self.stop = self.ending.attach(self.loop)
        self.messages: asyncio.Queue[Message] = asyncio.Queue()
        self.started = asyncio.Event()

    async def send(self, message: Message) -> None:
        if message["type"] == "lifespan.startup.complete":
            self.started.set()

    def start(self) -> None:
        async def startup() -> None:
            self.life = asyncio.create_task(
                _awaited(self.ending({"type": "lifespan"}, self.messages.get, self.send))
            )
            self.messages.put_nowait({"type": "lifespan.startup"})
            await self.started.wait()

        self.loop.run_until_complete(startup())

    def turn(self, times: int = 30) -> None:
        async def turning() -> None:
            for _ in range(times):
                await asyncio.sleep(0)

        self.loop.run_until_complete(turning())

    def end(self) -> None:
        self.messages.put_nowait({"type": "lifespan.shutdown"})
        self.loop.run_until_complete(self.life)
        self.loop.close()


async def _awaited(answer: object) -> None:
    await answer  # type: ignore[misc] # what an ASGI app gives


@pytest.fixture
def life() -> Life:
    return Life()


@pytest.mark.parametrize("how", STOPS)
def test_the_first_signal_ends_it_and_the_others_do_nothing(
    life: Life, how: signal.Signals
) -> None:
    life.start()
    life.turn()
    assert life.stop.times == 0  # type: ignore[attr-defined]
    os.kill(os.getpid(), how)
    os.kill(os.getpid(), signal.SIGTERM)
    life.turn()
    os.kill(os.getpid(), how)
    life.turn()
    assert life.stop.times == 1  # type: ignore[attr-defined]
    life.end()
    os.kill(os.getpid(), how)  # the loop is closed


def test_a_signal_during_the_startup_is_granted_when_the_server_runs(life: Life) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    life.turn()
    assert life.stop.times == 0  # type: ignore[attr-defined]
    life.start()
    assert life.stop.times == 0  # type: ignore[attr-defined]
    life.turn()
    assert life.stop.times == 1  # type: ignore[attr-defined]
    life.end()


def test_a_signal_between_startup_and_server_is_not_lost(life: Life) -> None:
    life.start()
    os.kill(os.getpid(), signal.SIGTERM)
    assert life.stop.times == 0  # type: ignore[attr-defined]
    life.turn()
    assert life.stop.times == 1  # type: ignore[attr-defined]
    life.end()


def test_a_new_worker_can_be_killed() -> None:
    end_at_once()
    assert [signal.getsignal(each) for each in STOPS] == [signal.SIG_DFL] * 2


def test_the_parent_sleeps_until_it_is_woken_even_by_a_signal() -> None:
    wake = Wake(lambda: False)
    signal.signal(signal.SIGTERM, lambda *_: wake.set())
    os.kill(os.getpid(), signal.SIGTERM)
    wake.wait()
    threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGTERM)).start()
    wake.wait()


def test_what_woke_the_parent_is_forgotten_but_not_that_it_shall_end() -> None:
    ended = False
    wake = Wake(lambda: ended)
    wake.set()
    wake.clear()
    assert wake._wishes.empty()
    ended = True
    wake.clear()
    wake.wait()


def test_a_burst_of_signals_does_not_stop_it_from_stopping(shell: Shell) -> None:
    """Of four bursts one left granian's own handlers standing still."""
    for _ in range(6):
        with shell.serving() as server:
            worker = server.worker
            for turn in range(40):
                os.kill(worker, STOPS[turn % 2])
                server.process.send_signal(signal.SIGTERM)
            assert server.end() == 0
