import json
import logging
import sys

import pytest

from keybearer.cli.logs import AccessLog, Formatter, redact, secrets_of
from keybearer.settings import load

KEY = "kb_vtaoFVreSd8lXgGNTpx3UkqKpBZD8haMSUz68SH9ysH0n22gQ"
SECRET = "Zq8vT3mX1cR7nB5kW9yL2dF6hJ4sG0aP"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"key {KEY}.", "key [redacted]."),
        (f"kb_live_{KEY[3:]}", "[redacted]"),
        (f"kbs_{KEY[3:]}", "[redacted]"),
        (f"kbr_{'x' * 76}", "[redacted]"),
        (f"/reset-password/{KEY[3:46]}", "/reset-password/[redacted]"),
        (f"/reset-password/{KEY[3:20]}?callbackURL=/", "/reset-password/[redacted]?callbackURL=/"),
        ('{"path": "/iam/reset-password/abc"}', '{"path": "/iam/reset-password/[redacted]"}'),
        (f"/calendar/kbc_{KEY[3:]}.ics", "/calendar/[redacted]"),
        (
            '{"path": "/iam/calendar/kbc_ab", "status": 404}',
            '{"path": "/iam/calendar/[redacted]", "status": 404}',
        ),
        ("/api/auth/calendar/create-x/y", "/api/auth/calendar/[redacted]/y"),
        ('{"path": "/api/auth/calendar/create"}', '{"path": "/api/auth/calendar/create"}'),
        ("GET /api/auth/calendar/revoke?x=1", "GET /api/auth/calendar/revoke?x=1"),
        ("GET /api/auth/calendar 200", "GET /api/auth/calendar 200"),
        ("POST /api/auth/reset-password 400", "POST /api/auth/reset-password 400"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer [redacted]"),
        ("authorization: basic dXNlcjpwYXNz", "authorization: basic [redacted]"),
        ("b'bearer short'", "b'bearer [redacted]'"),
        ("eyJhbGciOiJFZERTQSJ9.eyJzdWIi.c2ln and more", "[redacted] and more"),
        ("session_token=abc.def%3D; x=1", "session_token=[redacted]; x=1"),
        ("GET /verify-email?token=short&x=1", "GET /verify-email?token=[redacted]&x=1"),
        ("postgresql://me:pass-word@db/x", "postgresql://me:[redacted]@db/x"),
        ("the start kb_vtao stays", "the start kb_vtao stays"),
        ("01a20bbc-3ea9-74b6-83b9-3f3c61ad5141", "01a20bbc-3ea9-74b6-83b9-3f3c61ad5141"),
        ("127.0.0.1:8000 /api/auth/api-key/list", "127.0.0.1:8000 /api/auth/api-key/list"),
    ],
)
def test_what_looks_like_a_credential_goes(text: str, left: str) -> None:
    assert redact(text) == left


def test_the_secret_settings_go() -> None:
    settings = load(
        {
            "secret": SECRET,
            "smtp_url": "smtp://me:p%40ss@mail.example.com",
            "database_url": "postgresql://me:db-pass@db/x",
        },
        environ={},
    )
    text = redact(f"{SECRET} p@ss p%40ss db-pass", secrets_of(settings))
    assert text == "[redacted] [redacted] [redacted] [redacted]"


def record(message: str, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("keybearer", logging.INFO, __file__, 1, message, None, None)
    made.__dict__.update(extra)
    return made


def test_json_is_one_line_with_what_was_told() -> None:
    line = Formatter("json").format(record("key.revoked", key_id="k1", note="a\nb\x1b[2J"))
    event = json.loads(line)
    assert (event["event"], event["key_id"], event["level"]) == ("key.revoked", "k1", "info")
    assert event["note"] == "a\\nb\\x1b[2J"
    assert "\n" not in line


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_traceback_is_told_without_secrets(form: str) -> None:
    try:
        raise ValueError(f"no such key {KEY}")
    except ValueError:
        told = record("job.failed")
        told.exc_info = sys.exc_info()
    text = Formatter("json" if form == "json" else "console").format(told)
    assert "ValueError: no such key [redacted]" in text
    assert KEY[3:20] not in text


def test_a_forged_line_is_no_line_on_a_terminal() -> None:
    line = Formatter("console").format(record("request", path="/\n2026 fine", agent="\x1b]0;x\a"))
    assert "\n" not in line
    assert "\x1b]" not in line


async def test_the_access_log_has_the_path_and_never_the_query(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def app(scope: object, receive: object, send: object) -> None:
        await send(  # type: ignore[operator]
            {"type": "http.response.start", "status": 204, "headers": [(b"x-request-id", b"r1")]}
        )

    async def send(_message: object) -> None:
        return None

    scope = {
        "type": "http", "method": "GET", "path": "/api/auth/ok", "query_string": b"token=abc",
        "client": ("203.0.113.7", 1), "headers": [],
    }  # fmt: skip
    with caplog.at_level(logging.INFO, "keybearer.access"):
        await AccessLog(app)(scope, send, send)  # type: ignore[arg-type]
    (event,) = caplog.records
    told = {name: getattr(event, name) for name in ("method", "path", "status", "request_id")}
    assert told == {"method": "GET", "path": "/api/auth/ok", "status": 204, "request_id": "r1"}
    assert "abc" not in str(event.__dict__)
