"""Several nodes of one database, as attacks and faults find them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

from keybearer import Auth
from keybearer.adapters.passwords import Cost, Hasher
from keybearer.operations.keys import CreateKey
from keybearer.verification.shared import SharedLimiter
from tests.attacks.guarded import ask, bearer, guarded_app
from tests.people import SECRET, person

MINUTE = 60_000


class Nodes:
    """Nodes of one database, in one process."""

    def __init__(self, auths: Sequence[Auth], owner: str) -> None:
        self.auths = auths
        self.sites = [guarded_app(auth) for auth in auths]
        self.owner = owner

    async def make(self, maximum: int, **asked: object) -> str:
        made = await self.auths[0].api.create_api_key(
            CreateKey(
                user_id=self.owner,
                rate_limit_max=maximum,
                rate_limit_time_window=10 * MINUTE,
                **asked,  # type: ignore[arg-type]
            )
        )
        assert made.key is not None
        return made.key

    async def accepted(self, key: str, times: int, *, nodes: Sequence[int] | None = None) -> int:
        """How many of so many requests at each of these nodes; the others are 429."""
        asked = range(len(self.auths)) if nodes is None else nodes
        answers = await asyncio.gather(
            *(ask(self.sites[node], bearer(key)) for _ in range(times) for node in asked)
        )
        assert {answer.status for answer in answers} <= {200, 429}
        return sum(answer.status == 200 for answer in answers)

    def alone(self) -> list[bool]:
        return [not limits_of(auth).shared for auth in self.auths]

    async def are_back(self) -> None:
        tasks = [limits_of(auth)._returning for auth in self.auths]
        await asyncio.wait([task for task in tasks if task is not None], timeout=20)
        assert not any(self.alone())


def limits_of(auth: Auth) -> SharedLimiter:
    assert auth.node is not None
    assert auth.node.limits is not None
    return auth.node.limits


@contextlib.asynccontextmanager
async def open_nodes(url: str, redis_urls: Sequence[str]) -> AsyncIterator[Nodes]:
    """As many nodes as there are ways to Redis, each a member that knows the others."""
    async with contextlib.AsyncExitStack() as stack:
        auths = []
        for redis_url in redis_urls:
            auth = Auth(url, secret=SECRET, token_management=True, redis_url=redis_url)
            await auth.start()
            stack.push_async_callback(auth.stop)
            app = await auth.running()
            app.hasher.close()
            object.__setattr__(app, "hasher", Hasher(threads=2, cost=Cost(memory_kib=64, passes=1)))
            await app.verifier.lease.hold()  # with it, it is a member
            auths.append(auth)
        for auth in auths:
            await (await auth.running()).spread.members()
        owner = await person(await auths[0].running())
        yield Nodes(auths, owner.id)
