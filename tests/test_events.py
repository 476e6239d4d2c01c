"""What an operator reads while Redis goes and comes back: each thing once, and no secret."""

import asyncio
import logging
from pathlib import Path

import pytest

from keybearer import Auth, Session
from keybearer.operations.keyends import RevokeKey
from keybearer.operations.keys import CreateKey
from tests.people import SECRET
from tests.servers import own_redis

PASSWORD = "word-of-pass-7"
OURS = ("bus.", "limits.", "node.", "lease.", "redis.")


async def test_redis_goes_and_comes_back_in_the_log_without_a_secret(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    def told(event: str) -> int:
        return sum(record.message == event for record in caplog.records)

    async def heard(*events: str) -> None:
        async with asyncio.timeout(30):
            while not all(told(event) for event in events):  # noqa: ASYNC110 -- no event is set
                await asyncio.sleep(0.01)

    with own_redis("--requirepass", PASSWORD) as redis:
        url = redis.url.replace("//", f"//:{PASSWORD}@")
        auth = Auth(f"sqlite:///{tmp_path}/k.db", secret=SECRET, accounts=False, redis_url=url)
        async with auth.lifespan():
            assert told("node.entered") == 1
            redis.kill()
            key = await auth.api.create_api_key(CreateKey(name="ci"), owner="ada")
            headers = {"x-api-key": key.key or ""}
            for _ in range(3):
                assert isinstance(await auth.api.authenticate(headers), Session)
            await heard("bus.lost", "limits.alone")
            redis.start()
            await heard("bus.back", "limits.shared")
            assert isinstance(await auth.api.authenticate(headers), Session)
            await auth.api.revoke_api_key(RevokeKey(key_id=key.id))
    events = [record.message for record in caplog.records if record.message.startswith(OURS)]
    assert events[0] == "node.entered"
    assert sorted(events[1:]) == ["bus.back", "bus.lost", "limits.alone", "limits.shared"]
    written = "\n".join(f"{record.__dict__}" for record in caplog.records)
    assert [each for each in (PASSWORD, key.key, SECRET) if each and each in written] == []
