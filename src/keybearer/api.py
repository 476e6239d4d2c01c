"""auth.api: every operation as a typed call, and the check of a request."""

import os
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from keybearer.adapters.sql import accounts
from keybearer.domain.model import RequestFacts, Session, Verdict
from keybearer.domain.permissions import parse_needs
from keybearer.operations import keyedits, keyends, keys, reports, verify
from keybearer.operations.admission import admit
from keybearer.operations.app import App
from keybearer.operations.declaration import Call, Operation
from keybearer.operations.wire import UserRecord, user_record
from keybearer.verification.presented import raw

I = TypeVar("I")  # noqa: E741
O = TypeVar("O")  # noqa: E741

AnyHeaders = Mapping[str, str] | Iterable[tuple[Any, Any]]
Needs = str | Iterable[str] | Mapping[str, Sequence[str]] | None
Running = Callable[[], Awaitable[App]]


class Bound(Generic[I, O]):
    """One operation of one Auth."""

    def __init__(self, running: Running, declared: Operation[I, O]) -> None:
        self._running = running
        self._declared = declared
        self.__doc__ = f"{declared.summary}\n\n{declared.description}"

    async def __call__(
        self,
        asked: I,
        *,
        headers: AnyHeaders | None = None,
        owner: str = "operator",
        ip: str | None = None,
    ) -> O:
        """Calls the operation.

        Args:
            asked: its input.
            headers: of a request, to act as whoever sent it; without them the app itself acts,
                which may set what only the server may set.
            owner: whom the app acts for, by opaque id.
            ip: the client's address.

        Raises:
            Failure: refused, with a `code`.
            Unavailable: a dependency is lost.
        """
        app = await self._running()
        caller: Any = Session(subject=owner, kind="operator", id="app")
        verdict: Verdict = caller
        if headers is not None:
            caller, verdict = await admit(app, self._declared, raw(headers), ip)
        facts = RequestFacts(id=os.urandom(8).hex(), ip=ip)
        call = Call(app=app, caller=caller, facts=facts, now=app.clock.now(), verdict=verdict)
        return await self._declared(call, asked)


class Api:
    """The check of a request, and every operation by its name."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self.create_api_key = Bound(running, keys.create_api_key)
        self.list_api_keys = Bound(running, keys.list_api_keys)
        self.get_api_key = Bound(running, keys.get_api_key)
        self.update_api_key = Bound(running, keyedits.update_api_key)
        self.revoke_api_key = Bound(running, keyends.revoke_api_key)
        self.rotate_api_key = Bound(running, keyends.rotate_api_key)
        self.verify_api_key = Bound(running, verify.verify_api_key)
        self.verify_api_keys = Bound(running, verify.verify_api_keys)
        self.get_usage = Bound(running, reports.get_usage)
        self.list_audit = Bound(running, reports.list_audit)

    async def authenticate(
        self, headers: AnyHeaders, *, permissions: Needs = None, ip: str | None = None
    ) -> Verdict:
        """Checks a request: `Session`, `Refusal`, or `Anonymous` when nothing was presented.

        An accepted request counts against the key's limit and quota.

        Args:
            headers: Starlette's headers, a mapping, or raw pairs.
            permissions: what the endpoint asks for, as `"files:read"` or `{"files": ["read"]}`.
            ip: the client's address; a key that is bound to networks is refused without one.

        Raises:
            Unavailable: a dependency is lost; answer 503.
        """
        app = await self._running()
        return await app.verifier.verify(raw(headers), ip, parse_needs(permissions))

    async def get_session(
        self, headers: AnyHeaders, *, permissions: Needs = None, ip: str | None = None
    ) -> Session | None:
        """Who calls, or None: answer 401. Arguments and errors as `authenticate`."""
        verdict = await self.authenticate(headers, permissions=permissions, ip=ip)
        return verdict if isinstance(verdict, Session) else None

    async def get_user(self, id: str) -> UserRecord | None:
        """The user with this id (a session's `subject`), or None; also None without accounts.

        Raises:
            Unavailable: the database is lost.
        """
        app = await self._running()
        user = await app.database.read(lambda tx: accounts.user_by_id(tx, id))
        return None if user is None else user_record(user)

    async def end_owner(self, owner: str) -> int:
        """Revokes every key of an owner: for a host app whose user left. Gives their number.

        Raises:
            Unavailable: a dependency is lost.
        """
        app = await self._running()
        return await keyends.revoke_owner(app, owner)

    async def owner_changed(self, owner: str) -> None:
        """Tells that what an owner holds is another now: checks go by it when this returns."""
        app = await self._running()

        async def nothing(_tx: object) -> None:
            return None

        await app.change(nothing, lambda _: (f"owner:{owner}",))
