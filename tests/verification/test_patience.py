"""What is begun goes on, and whoever waits for it is told in time."""

import asyncio
from typing import Any

import pytest

from keybearer.domain.errors import Unavailable
from keybearer.verification import patience


@pytest.mark.parametrize(("usual", "seconds"), [(3600, 0.01), (0.01, None)])
async def test_nobody_waits_longer_than_was_said(
    monkeypatch: pytest.MonkeyPatch, usual: float, seconds: float | None
) -> None:
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", usual)
    asked = asyncio.get_running_loop().create_future()
    async with asyncio.timeout(5):
        with pytest.raises(Unavailable, match="in time"):
            await patience.in_time(asked, seconds)
    asked.set_result(5)  # it goes on
    assert await patience.in_time(asked) == 5


async def test_what_ends_unheard_is_no_error_of_the_loop() -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context))

    async def fails() -> None:
        raise Unavailable("lost")

    failing, cancelled = patience.begin(fails()), patience.begin(asyncio.sleep(3600))
    cancelled.cancel()
    await asyncio.wait({failing, cancelled})
    del failing, cancelled
    await asyncio.sleep(0)
    assert told == []
