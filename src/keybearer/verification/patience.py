"""Wait for what many share, but not for ever.

A database that hangs says nothing for many seconds, and cutting a statement short takes seconds
too. So what was begun goes on, and whoever waits for it is told in time.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from keybearer.domain.errors import Unavailable

T = TypeVar("T")

PATIENCE_SECONDS = 2.0
"""How long a check waits for one answer of the database."""


def begin(asked: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
    """Something that goes on whether or not anybody waits for it."""
    task = asyncio.ensure_future(asked)
    task.add_done_callback(_heard)
    return task


async def in_time(task: "asyncio.Future[T]", seconds: float | None = None) -> T:
    """What `task` gives, which goes on whatever becomes of whoever waits.

    Args:
        seconds: how long to wait for it at the most; PATIENCE_SECONDS unless given.

    Raises:
        Unavailable: it has given nothing until then.
    """
    await asyncio.wait([task], timeout=PATIENCE_SECONDS if seconds is None else seconds)
    if not task.done():
        raise Unavailable("the database does not answer in time")
    return task.result()


def _heard(task: "asyncio.Task[Any]") -> None:
    if not task.cancelled():
        task.exception()  # whoever waits has it; nobody waiting must not make a warning
