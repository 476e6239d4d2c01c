"""Jobs, each in a forked process of its own, some at once."""

import os
import resource
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

MEMORY = 4 << 30
"""Bytes that a job may have: a wrong may ask for all there is."""


def run(jobs: Iterable[Callable[[], str]], *, at_once: int) -> Iterator[tuple[int, str | None]]:
    """What each job said, with its number, in the order they end; None for one that was ended.

    A job is asked for when there is room for it, so that it can go by what those before have said.
    """
    running: dict[int, tuple[int, int]] = {}
    for number, job in enumerate(jobs):
        reader, writer = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(reader)
            _work(job, writer)
        os.close(writer)
        running[pid] = (number, reader)
        while len(running) >= at_once:
            yield _next(running)
    while running:
        yield _next(running)


def _work(job: Callable[[], str], writer: int) -> None:
    code = 1
    try:
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nowhere, stream)
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        os.write(writer, job().encode())
        code = 0
    finally:
        os._exit(code)


def _next(running: dict[int, tuple[int, int]]) -> tuple[int, str | None]:
    pid, _ = os.waitpid(-1, 0)
    number, reader = running.pop(pid)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read().decode()
    return number, said or None


def limit(seconds: float) -> None:
    """From now on this process may compute for so many seconds, and wait for four times as many.

    It ends then, whatever it does. That it waits for a processor, on a busy machine, is not held
    against it.
    """
    begun = time.monotonic() - _queued()

    def look(_number: int, _frame: object) -> None:
        if time.monotonic() - _queued() - begun > 4 * seconds:
            os._exit(1)

    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, 2, 2)


def _queued() -> float:
    """The seconds for which this process could have run, but other ones did."""
    try:
        return int(Path("/proc/self/schedstat").read_text().split()[1]) / 1e9
    except OSError:
        return 0.0
