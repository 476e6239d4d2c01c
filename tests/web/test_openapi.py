"""The document says all that is served, and is valid."""

import json
import re
from typing import Any

import httpx2
import jsonschema_rs
import pytest

from keybearer import Auth, api_key
from keybearer.domain.errors import PROBLEMS
from keybearer.web.openapi import document
from tests.people import SECRET


@pytest.fixture(scope="module")
def auth_of_all() -> Auth:
    return Auth("sqlite:////nowhere/keybearer.db", secret=SECRET, token_management=True)


@pytest.fixture(scope="module")
def described(auth_of_all: Auth) -> dict[str, Any]:
    return document(auth_of_all.operations, auth_of_all.settings, "/api/auth")


def operations(described: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (method.upper(), path, operation)
        for path, item in described["paths"].items()
        for method, operation in item.items()
    ]


def test_every_operation_and_every_other_name_of_it_is_there(
    auth_of_all: Auth, described: dict[str, Any]
) -> None:
    found = {(method, path) for method, path, _ in operations(described)}
    for declared in auth_of_all.operations:
        assert {(declared.method, declared.path), *declared.aliases} <= found
    for path in ("/forward", "/health/live", "/health/ready", "/metrics", "/openapi.json"):
        assert ("GET", path) in found


def test_headers_of_the_app_are_named(auth_of_all: Auth) -> None:
    plugins = [api_key(headers=["X-Acme-Key", "X-API-Key"])]
    auth = Auth("sqlite:////nowhere/keybearer.db", plugins, secret=SECRET, token_management=True)
    headers = [name.decode() for name in auth.plugins[0].headers]
    found = document(auth.operations, auth.settings, "/api/auth", headers=headers)
    schemes = found["components"]["securitySchemes"]
    assert schemes["apiKey.x-acme-key"]["name"] == "x-acme-key"
    assert len(schemes) == 5
    for path in ("/api-key/get", "/forward"):
        assert {"apiKey.x-acme-key": []} in found["paths"][path]["get"]["security"]
    assert {"apiKey.x-acme-key": []} not in found["paths"]["/api-key/list"]["get"]["security"]
    plain = document(auth_of_all.operations, auth_of_all.settings, "/api/auth")
    assert "apiKey.x-acme-key" not in json.dumps(plain)


def test_operation_ids_are_unique(described: dict[str, Any]) -> None:
    ids = [operation["operationId"] for _, _, operation in operations(described)]
    assert len(ids) == len(set(ids))


def test_every_reference_leads_somewhere(described: dict[str, Any]) -> None:
    for reference in re.findall(r'"\$ref": ?"([^"]*)"', json.dumps(described)):
        place: Any = described
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]


def test_every_schema_is_one(described: dict[str, Any]) -> None:
    for schema in described["components"]["schemas"].values():
        jsonschema_rs.meta.validate(schema)


def test_every_declared_code_stands_under_its_status(
    auth_of_all: Auth, described: dict[str, Any]
) -> None:
    for declared in auth_of_all.operations:
        answers = described["paths"][declared.path][declared.method.lower()]["responses"]
        for code in (*declared.errors, "INTERNAL_ERROR", "UNAVAILABLE"):
            content = answers[str(PROBLEMS[code].status)]["content"]
            assert (
                code in content["application/problem+json"]["schema"]["properties"]["code"]["enum"]
            )


def test_what_may_be_left_out_is_not_required(described: dict[str, Any]) -> None:
    schemas = described["components"]["schemas"]
    assert schemas["CreateKey"]["required"] == []
    assert "url" not in schemas["SignedIn"]["required"]
    assert schemas["Introspection"]["required"] == ["active"]
    assert schemas["Success"]["required"] == ["success"]


def test_a_path_parameter_is_one(described: dict[str, Any]) -> None:
    parameters = described["paths"]["/reset-password/{token}"]["get"]["parameters"]
    assert {each["name"]: (each["in"], each["required"]) for each in parameters} == {
        "token": ("path", True),
        "callbackURL": ("query", False),
    }


def test_delete_takes_its_fields_from_query_or_body(described: dict[str, Any]) -> None:
    revoke = described["paths"]["/api-key/revoke"]["delete"]
    assert not any(each["required"] for each in revoke["parameters"])
    assert not revoke["requestBody"]["required"]
    alias = described["paths"]["/api-key/delete"]["post"]
    assert "parameters" not in alias
    assert alias["requestBody"]["required"]


def test_forms_are_forms(described: dict[str, Any]) -> None:
    content = described["paths"]["/introspect"]["post"]["requestBody"]["content"]
    assert list(content) == ["application/x-www-form-urlencoded"]


def test_refusals_say_their_headers(described: dict[str, Any]) -> None:
    answers = described["paths"]["/forward"]["get"]["responses"]
    assert "WWW-Authenticate" in answers["401"]["headers"]
    assert {"Retry-After", "RateLimit", "RateLimit-Policy"} <= answers["429"]["headers"].keys()
    assert "Retry-After" in answers["503"]["headers"]


def test_management_is_not_mentioned_while_it_is_off() -> None:
    auth = Auth("sqlite:////nowhere/keybearer.db", secret=SECRET, token_management=False)
    paths = document(auth.operations, auth.settings, "/api/auth")["paths"]
    assert "/api-key/create" not in paths
    assert "/api-key/verify" in paths


def test_what_needs_accounts_is_not_there_without_them() -> None:
    auth = Auth("sqlite:////nowhere/keybearer.db", secret=SECRET, accounts=False)
    paths = document(auth.operations, auth.settings, auth.base)["paths"]
    gone = ("/login", "/refresh", "/logout", "/revoke", "/introspect", "/token", "/get-session",
            "/sign-up/email", "/sign-in/email", "/reset-password", "/delete-user")  # fmt: skip
    assert not paths.keys() & set(gone)
    assert {"/api-key/verify", "/audit", "/forward"} <= paths.keys()


def test_every_answer_to_an_unknown_host_is_there(described: dict[str, Any]) -> None:
    for method, path, operation in operations(described):
        if not path.startswith("/health/"):  # answered under any name
            codes = json.dumps(operation["responses"]["400"])
            assert "INVALID_HOST" in codes, (method, path)


def test_examples_hold_no_secret(described: dict[str, Any]) -> None:
    assert not re.search(r"kb[rs]?_[0-9A-Za-z]{8}|eyJ", json.dumps(described))


async def test_it_is_served_to_anyone_and_may_be_kept(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/api/auth/openapi.json")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "public, max-age=300"
    assert answer.json()["openapi"].startswith("3.1")
    assert answer.json()["info"]["version"] == "1"
    refused = await client.post("/api/auth/openapi.json")
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
