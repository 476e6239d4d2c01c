"""Whatever is sent, by whomever, the answer is one that the document promises."""

import contextlib
import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio.from_thread
import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import (
    content_type_conformance,
    load_all_checks,
    not_a_server_error,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from schemathesis.core.result import Ok

from keybearer import Auth
from keybearer.adapters.passwords import Cost, Hasher
from keybearer.operations import service_tokens
from keybearer.web.mount import no_app
from keybearer.web.openapi import document
from tests.people import PASSWORD, SECRET, StandingClock, call_of, log_in, make_key, person

load_all_checks()
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
]
BASE = "http://127.0.0.1:8000"
SETTINGS: dict[str, Any] = {
    "secret": SECRET,
    "token_management": True,
    "permissions": "files:read,files:write",
}
_DESCRIBED = Auth("sqlite:////nowhere/keybearer.db", **SETTINGS)
SCHEMA = schemathesis.openapi.from_dict(
    document(_DESCRIBED.operations, _DESCRIBED.settings, "/api/auth")
)
OPERATIONS = {
    f"{found.ok().method.upper()} {found.ok().path}": found.ok()
    for found in SCHEMA.get_all_operations()
    if isinstance(found, Ok)
}
_numbers = itertools.count()


class Server:
    """A keybearer on a loop of its own, called from tests that are not async."""

    def __init__(self, portal: anyio.from_thread.BlockingPortal, auth: Auth) -> None:
        self._portal = portal
        self._auth = auth
        mounted = auth.mount(no_app)
        self._near = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=mounted, client=("127.0.0.1", 1)), base_url=BASE
        )
        # Throttles go by address: what is tried in vain must not keep the next test out.
        self._far = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=mounted, client=("192.0.2.7", 1))
        )

    def credentials(self) -> dict[str, dict[str, str]]:
        """Of a new user, one of each kind; nothing is one too."""
        return self._portal.call(self._credentials)

    async def _credentials(self) -> dict[str, dict[str, str]]:
        app = await self._auth.running()
        email = f"ada{next(_numbers)}@example.com"
        await person(app, email)
        access = await log_in(self._near, email)
        signed = await self._near.post(
            "/api/auth/sign-in/email", json={"email": email, "password": PASSWORD}
        )
        cookie = signed.headers["set-cookie"].partition(";")[0]
        self._near.cookies.clear()
        key = (await make_key(self._near, access, name="CI"))["key"]
        _, service = await service_tokens.create(call_of(app), "fuzz")
        return {
            "nothing": {},
            "access": access,
            "session": {"authorization": f"Bearer {signed.json()['token']}"},
            "cookie": {"cookie": cookie, "origin": BASE},
            "key": {"authorization": f"Bearer {key}"},
            "key in its header": {"x-api-key": key},
            "service": {"authorization": f"Bearer {service.reveal()}"},
            "two": {"authorization": f"Bearer {key}", "x-api-key": key},
            "bad": {"authorization": "Bearer kb_bad"},
        }

    def send(self, case: Any, headers: dict[str, str]) -> httpx2.Response:
        """The answer to one case with one credential."""
        wanted = case.as_transport_kwargs(base_url=f"{BASE}/api/auth")
        wanted.pop("cookies", None)
        own = {k: v for k, v in dict(wanted.pop("headers")).items() if k.lower() != "cookie"}
        body = wanted.pop("data", None)
        if isinstance(body, dict):
            wanted["data"] = body
        elif body is not None:
            wanted["content"] = body
        request = httpx2.Request(
            **{name: value for name, value in wanted.items() if value is not None},
            headers={**own, **headers},
        )
        return self._portal.call(self._send, request)

    async def _send(self, request: httpx2.Request) -> httpx2.Response:
        self._far.cookies.clear()
        return await self._far.send(request)


@pytest.fixture(scope="module")
def server(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    path = tmp_path_factory.mktemp("schemathesis") / "keybearer.db"
    shutil.copy(sqlite_template, path)
    auth = Auth(f"sqlite:///{path}", clock=StandingClock(), **SETTINGS)

    @contextlib.asynccontextmanager
    async def started() -> Any:
        async with auth.lifespan():
            app = await auth.running()
            app.hasher.close()
            object.__setattr__(app, "hasher", Hasher(threads=2, cost=Cost(memory_kib=64, passes=1)))
            yield auth

    with (
        anyio.from_thread.start_blocking_portal() as portal,
        portal.wrap_async_context_manager(started()),
    ):
        yield Server(portal, auth)


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_answer_is_one_that_is_promised(server: Server, name: str) -> None:
    operation = OPERATIONS[name]
    credentials = server.credentials()
    right, wrong = (
        operation.as_strategy(generation_mode=mode)
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
    )

    @settings(
        max_examples=15,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(data=st.data())
    def holds(data: st.DataObject) -> None:
        both = right if not operation.body and not operation.query else st.one_of(right, wrong)
        case = data.draw(both)
        for headers in credentials.values():
            answer = server.send(case, headers)
            case.validate_response(answer, checks=CHECKS)

    holds()
