"""How an operation is declared, once, for everyone who serves it.

    @operation("POST", "/api-key/create", access=Access.MANAGER, tag="API keys", …)
    async def create_api_key(call: Call, asked: CreateKey) -> CreatedKey:
        '''Creates an API key. …'''

`web/api.py` makes the route and the OpenAPI entry of it, `Auth.api` calls the same function, and
so does the command. The name is the function's in camelCase, the types are its annotations, the
summary is the first line of its docstring.
"""

import enum
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Literal, TypeVar, get_type_hints

import msgspec

from keybearer.domain.credentials import Secret
from keybearer.domain.errors import PROBLEMS, Failure
from keybearer.domain.model import ANONYMOUS, ANYONE, Anonymous, RequestFacts, Session, Verdict
from keybearer.operations.sentences import refusal_of

if TYPE_CHECKING:
    from keybearer.operations.app import App

I = TypeVar("I")  # noqa: E741  the input
O = TypeVar("O")  # noqa: E741  the output


class Access(enum.Enum):
    """Who may call an operation over HTTP."""

    PUBLIC = "anyone; a credential is not looked at"
    OPTIONAL = "anyone; a credential that is presented must be good"
    SESSION = "a logged-in user (cookie, session token or access token)"
    MANAGER = "a logged-in user, or a service token"
    KEY = "an API key, for itself, even one that is bound to networks, disabled or expired"
    OWNER = "a logged-in user, or an API key for itself"
    SERVICE = "a service token"


class Empty(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """No input."""


class Input(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True, rename="camel"):
    """Root of what operations take: camelCase on the wire, unknown fields refused.

    Masked as a whole: most inputs hold a password, a token or a link.
    """

    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"


class Output(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Root of what operations answer: camelCase on the wire."""


@dataclass(slots=True)
class Reply:
    """What an answer carries beside its body; the transport turns it into headers.

    Attributes:
        session: a session token to set as cookie (and `set-auth-token`), or "end" to clear it.
        persistent: whether the cookie outlives the browser.
        location: where a redirect goes; the transport answers 302.
        onward: where whoever reads the answer goes next; the answer stays 200.
        jwt: an access token to give as `set-auth-jwt`.
    """

    session: "Secret | str | None" = None
    persistent: bool = True
    location: str | None = None
    onward: str | None = None
    jwt: str | None = None


@dataclass(slots=True)
class Call:
    """One call of one operation: who calls, from where, when.

    `owner` is the organization that the caller acts for, where that is so.
    """

    app: "App"
    caller: Session | Anonymous
    facts: RequestFacts
    now: int
    reply: Reply = field(default_factory=Reply)
    verdict: Verdict = ANONYMOUS
    owner: str | None = None

    @property
    def session(self) -> Session:
        """The accepted caller.

        Raises:
            Failure: UNAUTHORIZED, when nobody presented a credential.
        """
        if isinstance(self.caller, Anonymous):
            raise Failure("UNAUTHORIZED")
        return self.caller

    @property
    def trusted(self) -> bool:
        """Whether the app itself, the command or a service calls: may set server-only fields."""
        return isinstance(self.caller, Session) and self.caller.kind in ("service", "operator")

    @property
    def speaks_for(self) -> str | None:
        """Whose things the caller may speak of, by the owner's id; None for anyone's."""
        session = self.session
        if self.owner is not None:
            return self.owner
        if session.kind == "service" or (session.kind, session.subject) == ("operator", ANYONE):
            return None
        return session.subject


Function = Callable[[Call, I], Awaitable[O]]


@dataclass(frozen=True, slots=True)
class Operation(Generic[I, O]):
    """A declared operation. Calling it calls its function, if it exists here.

    What is asked may have been put together by a program, the command or a host app's: it is held
    to the rules of its fields here, whoever asks.

    Raises:
        Failure: NOT_FOUND for one that needs accounts, where keybearer keeps no users;
            VALIDATION_ERROR for a field that holds what it does not take.
    """

    name: str
    method: str
    path: str
    input: type[I]
    output: type[O]
    access: Access
    function: Function[I, O]
    tag: str
    errors: tuple[str, ...]
    summary: str
    description: str
    aliases: tuple[tuple[str, str], ...] = ()
    accounts: bool = False
    keys: bool = False
    management: bool = False
    secret: bool = False
    form: bool = False
    forms: bool = False
    redirects: bool = False
    verdict: bool = False
    session: Literal["begins", "ends"] | None = None
    cache_seconds: int | None = None
    media_type: str = "application/json"

    async def __call__(self, call: Call, asked: I) -> O:
        if self.accounts and not call.app.accounts:
            raise Failure("NOT_FOUND")
        asked = held(asked, self.input)
        with call.app.tracer.span(f"keybearer.{self.name}") as span:
            answer = await self.function(call, asked)
            span.tell(outcome="ok")
            return answer


def held(asked: I, type_: type[I]) -> I:
    """An input that keeps to the rules of its fields.

    Raises:
        Failure: UNKNOWN_FIELD, VALIDATION_ERROR, with a sentence that says what is right.
    """
    try:
        return msgspec.convert(msgspec.to_builtins(asked), type_)
    except msgspec.ValidationError as error:
        raise refusal_of(error, type_, texts=False) from None
    except TypeError as error:
        raise Failure("VALIDATION_ERROR", f"{type_.__name__}: {error}.") from None


def operation(
    method: str,
    path: str,
    *,
    access: Access,
    tag: str,
    errors: tuple[str, ...] = (),
    aliases: tuple[tuple[str, str], ...] = (),
    accounts: bool = False,
    keys: bool = False,
    management: bool = False,
    secret: bool = False,
    form: bool = False,
    forms: bool = False,
    redirects: bool = False,
    verdict: bool = False,
    session: Literal["begins", "ends"] | None = None,
    cache_seconds: int | None = None,
    media_type: str = "application/json",
) -> Callable[[Function[I, O]], Operation[I, O]]:
    """Declares the decorated function as an operation.

    Args:
        method, path: where it is served, below `/api/auth`; `{name}` in a path is an input field.
        access: who may call it.
        tag: its group in the reference.
        errors: the codes it answers beside those that every endpoint has.
        aliases: more `(method, path)` pairs that mean the same.
        accounts: exists only where keybearer keeps the users.
        keys: also for an API key, where a configuration lets keys stand for their owners; that
            counts as a use.
        management: answers 404 while TOKEN_MANAGEMENT is off.
        secret: the answer carries a secret (`Cache-Control: no-store`).
        form: takes `application/x-www-form-urlencoded` (RFC 7009, RFC 7662), not JSON.
        forms: takes either; a plain HTML form may send it.
        redirects: may answer 302 to `reply.location`.
        verdict: a PUBLIC operation that wants to know what was presented, good or bad: it finds
            the verdict on `call.verdict`, and decides itself.
        session: whether its answer may set the session cookie, or clear it.
        cache_seconds: for how long anyone may keep the answer; None means not at all.
        media_type: of the answer; one that is a `str` is sent as it is.
    """
    for code in errors:
        PROBLEMS[code]  # a code that is not in the table is a bug: found at import

    def declare(function: Function[I, O]) -> Operation[I, O]:
        hints = get_type_hints(function)
        summary, _, description = inspect.cleandoc(function.__doc__ or "").partition("\n")
        words = function.__name__.split("_")
        return Operation(
            name=words[0] + "".join(word.title() for word in words[1:]),
            method=method,
            path=path,
            input=hints["asked"],
            output=hints["return"],
            access=access,
            function=function,
            tag=tag,
            errors=errors,
            summary=summary,
            description=description.strip(),
            aliases=aliases,
            accounts=accounts,
            keys=keys,
            management=management,
            secret=secret,
            form=form,
            forms=forms,
            redirects=redirects,
            verdict=verdict,
            session=session,
            cache_seconds=cache_seconds,
            media_type=media_type,
        )

    return declare
