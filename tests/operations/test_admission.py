"""Who may call: one credential, of a kind that may, or the log-in of the host app."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from keybearer import Auth, Failure, Misuse, api_key
from keybearer.inputs import CreateKey, RotateKey
from keybearer.operations import service_tokens
from keybearer.operations.app import App
from keybearer.operations.tokens import Login
from keybearer.verification.presented import Headers
from keybearer.web.mount import no_app
from tests.people import call_of


async def identify(headers: Headers) -> str | None:
    return "user-5" if dict(headers).get(b"cookie") == b"sid=theirs" else None


@pytest.fixture
async def hosted(tmp_path: Path) -> AsyncIterator[Auth]:
    auth = Auth(
        f"sqlite:///{tmp_path / 'k.db'}",
        accounts=False,
        identify=identify,
        token_management=True,
    )
    async with auth.lifespan():
        yield auth


async def test_whoever_is_logged_in_to_the_host_app_has_keys(hosted: Auth) -> None:
    made = await hosted.api.create_api_key(headers={"cookie": "sid=theirs"})
    assert made.reference_id == "user-5"


async def test_whom_the_host_app_does_not_know_is_nobody(hosted: Auth) -> None:
    with pytest.raises(Failure, match="UNAUTHORIZED"):
        await hosted.api.create_api_key(headers={"cookie": "sid=another"})


async def test_nobody_of_the_host_app_passes_for_an_organization(tmp_path: Path) -> None:
    async def anyone(headers: Headers) -> str | None:
        return dict(headers).get(b"x-user", b"").decode() or None

    async def role_in(_organization: str, user: str) -> str | None:
        return "owner" if user == "boss" else None

    team = api_key(config_id="team", prefix="org_", role_in=role_in)
    auth = Auth(
        f"sqlite:///{tmp_path / 'k.db'}", [api_key(), team], accounts=False, identify=anyone,
        token_management=True,
    )  # fmt: skip
    async with auth.lifespan():
        made = await auth.api.create_api_key(
            CreateKey(config_id="team", organization_id="acme"), headers={"x-user": "boss"}
        )
        eve = {"x-user": "organization:acme"}
        for act in (
            auth.api.list_api_keys(headers=eve),
            auth.api.rotate_api_key(RotateKey(key_id=made.id), headers=eve),
            auth.api.authenticate(eve),
        ):
            with pytest.raises(Misuse, match="begins with 'organization:'"):
                await act


async def test_a_bad_key_is_refused_before_the_host_app_is_asked(hosted: Auth) -> None:
    with pytest.raises(Failure, match="INVALID_API_KEY"):
        await hosted.api.create_api_key(headers={"cookie": "sid=theirs", "x-api-key": "kb_bad"})


# --- one credential, of a kind that may -----------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/login"), ("POST", "/sign-up/email"), ("GET", "/jwks"), ("POST", "/logout"),
     ("GET", "/list-sessions"), ("POST", "/api-key/revoke-self")],
)  # fmt: skip
@pytest.mark.parametrize("twice", [("authorization", "x-api-key"), ("x-api-key", "x-api-key")])
async def test_two_credentials_are_refused_wherever_they_come(
    client: httpx2.AsyncClient, method: str, path: str, twice: tuple[str, str]
) -> None:
    headers = [(name, "Bearer kb_x") for name in twice]
    answer = await client.request(method, f"/api/auth{path}", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "MULTIPLE_CREDENTIALS")


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/list-sessions"), ("POST", "/revoke-sessions"), ("POST", "/update-user"),
     ("GET", "/audit"), ("GET", "/token")],
)  # fmt: skip
async def test_a_service_token_is_no_person(
    client: httpx2.AsyncClient, app: App, method: str, path: str
) -> None:
    _, token = await service_tokens.create(call_of(app), "shop")
    headers = {"authorization": f"Bearer {token.reveal()}"}
    answer = await client.request(method, f"/api/auth{path}", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "SESSION_REQUIRED")
    assert "service token" in answer.json()["message"]
    assert "set-cookie" not in answer.headers
    keys = await client.get("/api/auth/api-key/list", headers=headers)
    assert (keys.status_code, keys.json()["total"]) == (200, 0)


@pytest.mark.parametrize("path", ["/login", "/refresh", "/logout", "/revoke", "/introspect",
                                  "/token", "/get-session", "/sign-up/email"])  # fmt: skip
async def test_without_accounts_nothing_shows_that_there_could_be_some(
    hosted: Auth, path: str
) -> None:
    transport = httpx2.ASGITransport(app=hosted.mount(no_app), client=("127.0.0.1", 50_000))
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        for method in ("GET", "POST", "PUT"):
            answer = await client.request(method, f"/api/auth{path}")
            assert (answer.status_code, answer.json()["code"]) == (404, "NOT_FOUND")


async def test_without_accounts_a_call_of_theirs_is_refused(hosted: Auth) -> None:
    with pytest.raises(Failure, match="NOT_FOUND"):
        await hosted.api.login(Login(email="ada@example.com", password="x"))
    with pytest.raises(Failure, match="NOT_FOUND"):
        await hosted.api.revoke_sessions(owner="user-5")
