"""auth.api: every operation as a typed call, and the check of a request."""

import os
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from keybearer.adapters.sql import accounts as stored
from keybearer.domain.errors import Misuse
from keybearer.domain.model import (
    ANONYMOUS,
    ANYONE,
    ORGANIZATION,
    Anonymous,
    RequestFacts,
    Session,
    Verdict,
)
from keybearer.domain.permissions import stated
from keybearer.operations import (
    accounts,
    calendar,
    disowning,
    keybulk,
    keyedits,
    keyends,
    keypolicy,
    keys,
    people,
    recovery,
    reports,
    rotation,
    service_tokens,
    sessions,
    stepup,
    tokens,
    verify,
)
from keybearer.operations.admission import admit, identified
from keybearer.operations.app import App
from keybearer.operations.declaration import Access, Call, Operation
from keybearer.operations.wire import UserRecord, user_record
from keybearer.verification.presented import Headers, raw, user_agent

I = TypeVar("I")  # noqa: E741
O = TypeVar("O")  # noqa: E741
P = ParamSpec("P")

AnyHeaders = Mapping[str, str] | Iterable[tuple[Any, Any]]
Needs = str | Iterable[str] | Mapping[str, Sequence[str]] | None
Running = Callable[[], Awaitable[App]]


class Bound(Generic[I, O]):
    """One operation of one Auth."""

    def __init__(self, running: Running, declared: Operation[I, O]) -> None:
        self._running = running
        self.operation = declared
        self.__doc__ = f"{declared.summary}\n\n{declared.description}"

    async def __call__(
        self,
        asked: I | None = None,
        *,
        headers: AnyHeaders | None = None,
        owner: str | None = None,
        ip: str | None = None,
    ) -> O:
        """Calls the operation.

        Args:
            asked: its input, from `keybearer.inputs`; not needed where every field has a default.
            headers: of a request, to act as whoever sent it; without them the app itself acts,
                which may set what only the server may set.
            owner: whom the app acts for, by opaque id: what belongs to others is not found.
                Without one the app speaks of anybody's.
            ip: the client's address.

        Raises:
            Failure: refused, with a `code`.
            Misuse: an input is missing; the operation is a key's own, and no headers are given.
            Unavailable: a dependency is lost.
        """
        if asked is None:
            asked = self._nothing_asked()
        app = await self._running()
        sent = None if headers is None else raw(headers)
        caller, verdict = await self._caller(app, sent, owner, ip)
        agent = None if sent is None else user_agent(sent)
        facts = RequestFacts(id=os.urandom(8).hex(), ip=ip, user_agent=agent)
        call = Call(app=app, caller=caller, facts=facts, now=app.clock.now(), verdict=verdict)
        return await self.operation(call, asked)

    def _nothing_asked(self) -> I:
        try:
            return self.operation.input()
        except TypeError as error:
            raise Misuse(f"{self.operation.name}: {error}") from None

    async def _caller(
        self, app: App, sent: Headers | None, owner: str | None, ip: str | None
    ) -> tuple[Session | Anonymous, Verdict]:
        if sent is not None:
            return await admit(app, self.operation, sent, ip)
        if self.operation.access is Access.PUBLIC:
            return ANONYMOUS, ANONYMOUS  # a log-in is the person's, never the app's
        if self.operation.access is Access.KEY:
            raise Misuse(f"{self.operation.name} is for the key itself: give headers= that have it")
        operator = _app(owner)
        return operator, operator


def _app(owner: str | None = None) -> Session:
    """The app itself as a caller.

    Raises:
        Misuse: for an owner that cannot be one.
    """
    if owner in ("", ANYONE):
        raise Misuse(f"owner={owner!r} is nobody's id")
    if owner is not None and owner.startswith(ORGANIZATION):
        # An app passes the ids of its users here: one that is called so must not be one.
        raise Misuse(f"owner= is no organization: {owner!r} is named by organization_id")
    return Session(subject=owner or ANYONE, kind="operator", id="app")


class ByOperator(Generic[P, O]):
    """One act of the operator, which is no HTTP operation."""

    def __init__(
        self, running: Running, function: Callable[Concatenate[Call, P], Awaitable[O]]
    ) -> None:
        self._running = running
        self._function = function
        self.__doc__ = function.__doc__

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> O:
        app = await self._running()
        operator = _app()
        facts = RequestFacts(id=os.urandom(8).hex())
        call = Call(app=app, caller=operator, facts=facts, now=app.clock.now(), verdict=operator)
        return await self._function(call, *args, **kwargs)


class Users:
    """What the operator does with users, by id or address."""

    def __init__(self, running: Running) -> None:
        self.create = ByOperator(running, people.create)
        self.page = ByOperator(running, people.page)
        self.find = ByOperator(running, people.find)
        self.disable = ByOperator(running, people.disable)
        self.enable = ByOperator(running, people.enable)
        self.delete = ByOperator(running, people.delete)


class ServiceTokens:
    """What the operator does with the tokens of apps that ask over HTTP."""

    def __init__(self, running: Running) -> None:
        self.create = ByOperator(running, service_tokens.create)
        self.list = ByOperator(running, service_tokens.listing)
        self.revoke = ByOperator(running, service_tokens.revoke)


class Api:
    """The check of a request, and every operation by its name."""

    def __init__(self, running: Running) -> None:  # noqa: PLR0915 -- one line an operation
        self._running = running
        # keys
        self.create_api_key = Bound(running, keys.create_api_key)
        self.list_api_keys = Bound(running, keys.list_api_keys)
        self.get_api_key = Bound(running, keys.get_api_key)
        self.update_api_key = Bound(running, keyedits.update_api_key)
        self.revoke_api_key = Bound(running, keyends.revoke_api_key)
        self.update_api_keys = Bound(running, keybulk.update_api_keys)
        self.revoke_api_keys = Bound(running, keybulk.revoke_api_keys)
        self.revoke_self = Bound(running, keyends.revoke_self)
        self.delete_api_key = Bound(running, keyends.delete_api_key)
        self.delete_all_expired_api_keys = Bound(running, keyends.delete_all_expired_api_keys)
        self.rotate_api_key = Bound(running, keyends.rotate_api_key)
        self.get_rotation = Bound(running, rotation.get_rotation)
        self.finish_rotation = Bound(running, rotation.finish_rotation)
        self.extend_rotation = Bound(running, rotation.extend_rotation)
        self.cancel_rotation = Bound(running, rotation.cancel_rotation)
        self.verify_api_key = Bound(running, verify.verify_api_key)
        self.verify_api_keys = Bound(running, verify.verify_api_keys)
        self.get_usage = Bound(running, reports.get_usage)
        self.daily_usage = Bound(running, reports.daily_usage)
        self.list_activity = Bound(running, reports.list_activity)
        self.summarize_keys = Bound(running, keypolicy.summarize_keys)
        self.get_key_policy = Bound(running, keypolicy.get_key_policy)
        self.list_audit = Bound(running, reports.list_audit)
        self.disown_event = Bound(running, disowning.disown_event)
        # the calendar
        self.create_calendar = Bound(running, calendar.create_calendar)
        self.revoke_calendar = Bound(running, calendar.revoke_calendar)
        self.get_calendar = Bound(running, calendar.get_calendar)
        self.read_calendar = Bound(running, calendar.read_calendar)
        # accounts
        self.sign_up_email = Bound(running, accounts.sign_up_email)
        self.send_verification_email = Bound(running, accounts.send_verification_email)
        self.verify_email = Bound(running, accounts.verify_email)
        self.confirm_email = Bound(running, accounts.confirm_email)
        self.update_user = Bound(running, accounts.update_user)
        self.delete_user = Bound(running, accounts.delete_user)
        self.request_password_reset = Bound(running, recovery.request_password_reset)
        self.open_reset_link = Bound(running, recovery.open_reset_link)
        self.reset_password = Bound(running, recovery.reset_password)
        self.change_password = Bound(running, recovery.change_password)
        # sessions
        self.sign_in_email = Bound(running, sessions.sign_in_email)
        self.sign_out = Bound(running, sessions.sign_out)
        self.get_session_and_user = Bound(running, sessions.get_session)
        self.list_sessions = Bound(running, sessions.list_sessions)
        self.revoke_session = Bound(running, sessions.revoke_session)
        self.revoke_sessions = Bound(running, sessions.revoke_sessions)
        self.revoke_other_sessions = Bound(running, sessions.revoke_other_sessions)
        self.verify_password = Bound(running, stepup.verify_password)
        # tokens
        self.login = Bound(running, tokens.login)
        self.refresh = Bound(running, tokens.refresh)
        self.logout = Bound(running, tokens.logout)
        self.revoke_token = Bound(running, tokens.revoke_token)
        self.introspect = Bound(running, tokens.introspect)
        self.get_token = Bound(running, tokens.get_token)
        self.get_jwks = Bound(running, tokens.get_jwks)
        # the operator
        self.users = Users(running)
        self.service_tokens = ServiceTokens(running)

    async def authenticate(
        self, headers: AnyHeaders, *, permissions: Needs = None, ip: str | None = None
    ) -> Verdict:
        """Checks a request: `Session`, `Refusal`, or `Anonymous` when nothing was presented.

        Without a credential of ours it is whoever `identify` says. An accepted request counts
        against the key's limit and quota.

        Args:
            headers: Starlette's headers, a mapping, or raw pairs.
            permissions: what the endpoint asks for, as `"files:read"` or `{"files": ["read"]}`.
            ip: the client's address; a key that is bound to networks is refused without one.

        Raises:
            Misuse: `permissions` is no list of permissions.
            Unavailable: a dependency is lost; answer 503.
        """
        app = await self._running()
        sent, needed = raw(headers), stated(permissions, "permissions=")
        verdict = await app.verifier.verify(sent, ip, needed)
        if isinstance(verdict, Anonymous):
            return await identified(app, sent, needed)
        return verdict

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
        user = await app.database.read(lambda tx: stored.user_by_id(tx, id))
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
