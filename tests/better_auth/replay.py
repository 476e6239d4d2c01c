"""What Better Auth was asked, asked of us: how the answers differ, in marks.

    captures.jsonl      one request and its answer a line, in the order in which they were made
    a setting           A to F: one configuration of theirs, and one of ours that means the same
    a mark              one difference: `404→405 METHOD_NOT_ALLOWED`, `-token`, `+status`

Tokens, cookies and ids that their answers gave are exchanged for those that ours gave, passwords
for ones that are not taken with us. Calls on their server object (`/_server/…`) have no path
there; here a service token makes them.
"""

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import httpx2
import msgspec

from keybearer import Auth
from keybearer.adapters.passwords import Cost, Hasher
from keybearer.domain.credentials import mint, service_token_hash
from keybearer.inputs import UpdateKey, VerifyKey
from keybearer.operations import outbox
from keybearer.web.mount import no_app
from tests.better_auth.settings import SETTINGS, Members
from tests.people import SECRET, StandingClock

CAPTURES = Path(__file__).with_name("captures.jsonl")
DAY = 86_400_000
_SERVICE = mint("kbs_", lambda n: bytes(range(n))).reveal()
_PASSWORDS = {
    "password12345": "zumplevark tinsel owe",
    "password1234": "plumqvortzixkedwy",
    "newpassword99": "grixwobt henfulcame",
    "newpassword100": "fjordwaltz nymphquick",
    "resetpassword1": "blortchive wunskedap",
}
_SERVER = {
    "verifyApiKey": "/api/auth/api-key/verify",
    "createApiKey": "/api/auth/api-key/create",
    "updateApiKey": "/api/auth/api-key/update",
    "deleteAllExpiredApiKeys": "/api/auth/api-key/delete-all-expired-api-keys",
}
_MADE_UP = frozenset(
    {"id", "token", "key", "kid", "x", "referenceId", "userId", "start", "createdAt", "updatedAt",
     "expiresAt", "lastRequest", "lastRefillAt", "tryAgainIn"}
)  # fmt: skip
"""Members whose values no two servers give alike: their types are compared."""
_HEADERS = ("access-control-expose-headers", "cache-control", "location", "pragma",
            "set-auth-jwt", "set-auth-token", "content-type", "x-retry-after")  # fmt: skip
_TOKENS = frozenset({"set-auth-jwt", "set-auth-token"})
_COOKIE = re.compile(r"(?:__Secure-|__Host-)?(?:better-auth|keybearer)\.")
_MADE_UP_IN_URL = re.compile(r"(?<=token=)\w+")
_TOKEN = re.compile(r"session_token=([^;']+)")
_LINK = re.compile(r"(verify-email[?]token=|reset-password/)([^&?\s]+)")
_ELSEWHERE = frozenset({"host", "connection", "content-length", "transfer-encoding",
                        "accept-encoding"})  # fmt: skip


class Pair(msgspec.Struct, frozen=True):
    """One request and its answer; `number` is its line."""

    number: int
    step: str
    setting: str
    method: str
    url: str
    headers: list[tuple[str, str]]
    body: str | None
    status: int
    answer_headers: list[tuple[str, str]]
    answer: Any

    @property
    def server(self) -> str | None:
        """The function of their server object that was called; None for a request."""
        return self.url.removeprefix("/_server/") if self.url.startswith("/_server/") else None


def captured() -> list[Pair]:
    """Every pair, in order."""
    return [
        _pair(number, json.loads(line))
        for number, line in enumerate(CAPTURES.read_text("utf-8").splitlines(), 1)
    ]


def _pair(number: int, line: dict[str, Any]) -> Pair:
    asked, answered = line["request"], line["response"]
    status, body = answered["status"], _value(answered.get("body"))
    if asked["url"].startswith("/_server/"):
        if "thrown" in body:
            status, body = body["thrown"]["statusCode"], body["thrown"]["body"]
        else:
            body = body["ok"]
    return Pair(
        number=number,
        step=line["step"],
        setting=line["setting"][0],
        method=asked["method"],
        url=asked["url"],
        headers=[(name.lower(), value) for name, value in asked.get("rawHeaders") or ()],
        body=asked.get("body"),
        status=status,
        answer_headers=[(name.lower(), value) for name, value in answered.get("headers") or ()],
        answer=body,
    )


def _value(body: str | None) -> Any:
    try:
        return json.loads(body or "null")
    except ValueError:
        return body


# --- replaying ------------------------------------------------------------------------------


async def replay(setting: str, pairs: list[Pair], database: str) -> dict[int, set[str]]:
    """The marks of every pair of one setting."""
    async with _served(setting, database) as run:
        return {pair.number: await run.one(pair) for pair in pairs if pair.setting == setting}


@asynccontextmanager
async def _served(setting: str, database: str) -> AsyncIterator["_Run"]:
    clock, members = StandingClock(), Members()
    configured = SETTINGS[setting](members)
    auth = Auth(
        database,
        **configured,
        secret=SECRET,
        clock=clock,
        token_management=True,
        require_email_verification=False,
        password_min_length=8,
        service_tokens=[service_token_hash(_SERVICE.encode())],
    )
    await auth.start()
    app = await auth.running()
    app.hasher.close()
    object.__setattr__(app, "hasher", Hasher(threads=1, cost=Cost(memory_kib=64, passes=1)))
    transport = httpx2.ASGITransport(app=auth.mount(no_app), client=("127.0.0.1", 50000))
    async with httpx2.AsyncClient(transport=transport, base_url=auth.settings.origin) as client:
        yield _Run(auth, client, clock, members)
    await auth.stop()


class _Run:
    """One setting under way: what is known of their tokens and ids, and of ours."""

    def __init__(
        self, auth: Auth, client: httpx2.AsyncClient, clock: StandingClock, members: Members
    ) -> None:
        self._auth = auth
        self._client = client
        self._clock = clock
        self._members = members
        self._ours: dict[str, str] = {}
        """What stands in their requests -> what stands in ours."""

    async def one(self, pair: Pair) -> set[str]:
        """Asks what they were asked; gives how the answer differs."""
        await self._before(pair)
        if pair.server == "addMember":
            told = json.loads(pair.body or "{}")["body"]
            self._members.add(told["organizationId"], self._known(told["userId"]), told["role"])
            return {"of the host app"}
        if pair.server is not None and pair.server not in _SERVER:
            return {"no counterpart"}
        self._client.cookies.clear()  # theirs says itself which cookies it sends
        answer = await self._ask(pair)
        body = _value(answer.text)
        marks = set(_differences(pair, answer.status_code, body, self))
        if pair.status == answer.status_code and pair.server is None:
            marks |= set(_in_headers(pair, answer))
        if pair.status == answer.status_code == 200:
            await self._learn(pair, answer, body)
        if pair.step == "org create":
            self._members.add(pair.answer["id"], self._known(pair.answer["members"][0]["userId"]),
                              "owner")  # fmt: skip
        return marks

    async def _ask(self, pair: Pair) -> httpx2.Response:
        if pair.server is not None:
            asked = json.loads(pair.body or "{}").get("body") or {}
            return await self._client.post(
                _SERVER[pair.server],
                json=self._swap(asked),
                headers={"authorization": f"Bearer {_SERVICE}"},
            )
        headers = [
            (name, self._exchange(_COOKIE.sub(self._cookie_prefix, value)))
            for name, value in pair.headers
            if name not in _ELSEWHERE
        ]
        return await self._client.request(
            pair.method,
            self._exchange(pair.url),
            content=None if pair.body is None else self._body(pair.body),
            headers=headers,
        )

    @property
    def _cookie_prefix(self) -> str:
        return "__Host-keybearer." if self._auth.settings.secure else "keybearer."

    def _body(self, body: str) -> str:
        try:
            return json.dumps(self._swap(json.loads(body)))
        except ValueError:
            return self._exchange(body)

    def _swap(self, value: Any) -> Any:
        """The same value with what we know instead, text by text."""
        if isinstance(value, dict):
            return {name: self._swap(member) for name, member in value.items()}
        if isinstance(value, list):
            return [self._swap(item) for item in value]
        return self._known(value) if isinstance(value, str) else value

    def _known(self, text: str) -> str:
        return _PASSWORDS.get(text) or self._ours.get(text, text)

    def _exchange(self, text: str) -> str:
        """The same text with what we know instead, wherever it stands in it."""
        both = {theirs: quote(ours) for theirs, ours in _PASSWORDS.items()} | self._ours
        for theirs in sorted(both, key=len, reverse=True):
            text = text.replace(theirs, both[theirs])
        return text

    # --- what happens between the pairs ---

    async def _before(self, pair: Pair) -> None:
        app = await self._auth.running()
        await app.verifier.usage.flush(self._clock.now())
        happens = _BETWEEN.get(pair.number)
        if happens is not None:
            await happens(self)
        if pair.step in ("verifyEmail link", "reset link"):
            theirs = _LINK.search(pair.url)
            assert theirs is not None
            self._ours[theirs[2]] = await self._mailed(theirs[1])

    async def _mailed(self, path: str) -> str:
        """The token of the newest link in a mail."""
        letters = await outbox.recent(await self._auth.running(), limit=50)
        found = (_LINK.search(letter.text) for letter in letters)
        return next(link[2] for link in found if link is not None and link[1] == path)

    def wait(self, ms: int) -> None:
        self._clock.advance(ms)

    async def delete(self, email: str) -> None:
        await self._auth.api.users.delete(email)

    async def left(self, key: str, remaining: int) -> None:
        """Sets the quota of a key: a call that they refused was counted here."""
        verified = await self._auth.api.verify_api_key(VerifyKey(key=self._known(key), cost=0))
        assert verified.key is not None
        await self._auth.api.update_api_key(UpdateKey(key_id=verified.key.id, remaining=remaining))

    # --- what their answers and ours call the same ---

    async def _learn(self, pair: Pair, answer: httpx2.Response, body: Any) -> None:
        theirs = dict(pair.answer_headers).get("set-auth-token")
        ours = answer.headers.get("set-auth-token")
        self._learn_members(pair.answer, body)
        if theirs is not None and ours is None and pair.url.endswith("/sign-up/email"):
            ours = await self._log_in(json.loads(pair.body or "{}"))
        if theirs is None and ours is not None:
            # They go on with the token they had, ours with a new one.
            theirs = unquote(_TOKEN.findall(str(pair.headers))[0])
        if theirs is None or ours is None:
            return
        for mine, yours in zip(ours.split("."), theirs.split("."), strict=True):
            self._ours[yours] = mine
            self._ours[quote(yours, safe="")] = quote(mine, safe="")

    async def _log_in(self, told: dict[str, str]) -> str:
        """A sign-up of theirs logs in; ours is followed by a sign-in."""
        asked = {"email": told["email"], "password": self._known(told["password"])}
        self._client.cookies.clear()
        answer = await self._client.post(
            "/api/auth/sign-in/email", json=asked, headers={"user-agent": "node"}
        )
        return str(answer.headers["set-auth-token"])

    def _learn_members(self, theirs: Any, ours: Any) -> None:
        if not isinstance(theirs, dict) or not isinstance(ours, dict):
            return
        for name, value in theirs.items():
            mine = ours.get(name)
            if name in ("id", "key") and isinstance(value, str) and isinstance(mine, str):
                self._ours[value] = mine
            else:
                self._learn_members(value, mine)

    def pairs_of(self, theirs: list[Any], ours: list[Any]) -> Iterator[tuple[Any, Any]]:
        """Items of two lists that mean the same, whatever the order."""
        by_id = {item.get("id"): item for item in ours if isinstance(item, dict)}
        for place, item in enumerate(theirs):
            id = item.get("id") if isinstance(item, dict) else None
            if id is not None:
                mine = by_id.get(self._ours.get(id))
            else:
                mine = ours[place] if place < len(ours) else None
            if mine is not None:
                yield item, mine


Between = Callable[[_Run], Awaitable[None]]


def _after(ms: int) -> Between:
    async def happens(run: _Run) -> None:
        run.wait(ms)

    return happens


async def _eve_leaves(run: _Run) -> None:
    await run.delete("eve@example.com")


async def _one_is_left(run: _Run) -> None:
    await run.left("jEtigLzySbZlZbJHELSkQggUZAAROZkcoqKXXHIYaaHuHJzRByVbSJYtlZbLOiBp", 1)


_BETWEEN: dict[int, Between] = {
    87: _one_is_left,
    93: _after(600),
    105: _after(2 * DAY),
    249: _after(1_500),
    250: _after(700),
    253: _after(900),
    254: _after(900),
    255: _after(900),
    256: _after(900),
    258: _after(2 * DAY),
    270: _eve_leaves,
    273: _after(8 * DAY),
}


# --- comparing ------------------------------------------------------------------------------


def _differences(pair: Pair, status: int, ours: Any, run: _Run) -> Iterator[str]:
    code = ours.get("code", "") if isinstance(ours, dict) else ""
    if pair.status != status:
        yield f"{pair.status}→{status} {code}".strip()
        return
    if pair.answer is None and status == 404:
        yield "404 has a body"
        return
    if status < 400:
        yield from _members(pair.answer, ours, "", run)
        return
    theirs = pair.answer
    if theirs.get("code") != code:
        yield f"{theirs.get('code')}→{code}"
    if theirs["message"] != ours["message"]:
        yield "message"
    if "details" in theirs:
        yield from _members(theirs["details"], ours.get("details"), "details", run)
    if set(ours) - {"code", "message", "details"}:
        yield "problem+json"


def _members(theirs: Any, ours: Any, name: str, run: _Run) -> Iterator[str]:
    if _kind(theirs) != _kind(ours):
        yield f"{name}: {_kind(theirs)}→{_kind(ours)}".removeprefix(": ")
    elif isinstance(theirs, dict):
        yield from (f"-{missing}" for missing in theirs.keys() - ours.keys())
        yield from (f"+{added}" for added in ours.keys() - theirs.keys())
        for member in theirs.keys() & ours.keys():
            yield from _members(theirs[member], ours[member], member, run)
    elif isinstance(theirs, list):
        if len(theirs) != len(ours):
            yield f"{name or 'list'}: {len(theirs)}→{len(ours)} items"
        for one, other in run.pairs_of(theirs, ours):
            yield from _members(one, other, name, run)
    elif name not in _MADE_UP and theirs != ours:
        yield f"{name}: {json.dumps(theirs)}→{json.dumps(ours)}"


def _kind(value: Any) -> str:
    names = {bool: "boolean", int: "number", float: "number", str: "string", list: "array",
             dict: "object", type(None): "null"}  # fmt: skip
    return names[type(value)]


def _in_headers(pair: Pair, answer: httpx2.Response) -> Iterator[str]:
    theirs, ours = dict(pair.answer_headers), answer.headers
    for name in _HEADERS:
        one, other = theirs.get(name), ours.get(name)
        if one is not None and other is None:
            yield f"-{name}"
        elif other is not None and one is None:
            if name != "content-type":  # theirs of an error page or nothing at all
                yield f"+{name}"
        elif name not in _TOKENS and one != other and pair.status < 400:
            yield f"{name}: {_MADE_UP_IN_URL.sub('…', f'{one}→{other}')}"
    one_jar = _jar(value for name, value in pair.answer_headers if name == "set-cookie")
    other_jar = _jar(ours.get_list("set-cookie"))
    yield from (f"-cookie {name}" for name in one_jar.keys() - other_jar.keys())
    yield from (f"+cookie {name}" for name in other_jar.keys() - one_jar.keys())
    for name in one_jar.keys() & other_jar.keys():
        if one_jar[name] != other_jar[name]:
            yield f"cookie {name}: {one_jar[name]}→{other_jar[name]}"


def _jar(cookies: Any) -> dict[str, str]:
    """Cookies by name without its prefix; their attributes, and whether they are emptied."""
    jar = {}
    for cookie in cookies:
        name, _, rest = cookie.partition("=")
        value, _, attributes = rest.partition("; ")
        jar[_COOKIE.sub("", name)] = attributes if value else f"emptied; {attributes}"
    return jar
