"""A plain HTML form signs up and logs in."""

import httpx2
import pytest

from keybearer.operations.app import App
from tests.people import PASSWORD, person

SIGN_IN = "/api/auth/sign-in/email"


async def test_a_form_logs_in(app: App, client: httpx2.AsyncClient) -> None:
    await person(app)
    asked = {"email": "ada@example.com", "password": PASSWORD, "rememberMe": "false"}
    answer = await client.post(SIGN_IN, data=asked)
    assert (answer.status_code, answer.json()["redirect"]) == (200, False)
    assert "Max-Age" not in answer.headers["set-cookie"]


async def test_a_form_signs_up(app: App, client: httpx2.AsyncClient) -> None:
    asked = {"email": "ann@example.com", "password": PASSWORD, "name": "Ann"}
    answer = await client.post("/api/auth/sign-up/email", data=asked)
    assert answer.json()["user"]["email"] == "ann@example.com"


async def test_another_site_s_form_logs_nobody_in(app: App, client: httpx2.AsyncClient) -> None:
    await person(app)
    asked = {"email": "ada@example.com", "password": PASSWORD}
    answer = await client.post(SIGN_IN, data=asked, headers={"origin": "https://evil.example"})
    assert (answer.status_code, answer.json()["code"]) == (403, "INVALID_ORIGIN")


@pytest.mark.parametrize("body", ["email=a&email=b&password=x", "email=%00&password=x", "email"])
async def test_a_form_that_is_none_is_refused(client: httpx2.AsyncClient, body: str) -> None:
    headers = {"content-type": "application/x-www-form-urlencoded; charset=utf-8"}
    answer = await client.post(SIGN_IN, content=body, headers=headers)
    assert answer.status_code == 400


async def test_other_endpoints_take_no_form(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/api/auth/request-password-reset", data={"email": "a@example.com"})
    assert answer.status_code == 415


async def test_where_to_go_next_stands_in_the_answer_of_a_sign_in(
    app: App, client: httpx2.AsyncClient
) -> None:
    await person(app)
    asked = {"email": "ada@example.com", "password": PASSWORD, "callbackURL": "/dash"}
    answer = await client.post(SIGN_IN, json=asked)
    assert (answer.status_code, answer.headers["location"]) == (200, "/dash")
    assert (answer.json()["redirect"], answer.json()["url"]) == (True, "/dash")
