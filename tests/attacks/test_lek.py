"""Leaks: storage, logs, errors, what can be looked at (rows A302 to A309, A314, P09)."""

import os
import stat
import subprocess
import sys
import threading
import zipfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, get_args

import httpx2
import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError

from keybearer import Auth
from keybearer.adapters.mail import Mail
from keybearer.adapters.sql.tables import metadata
from keybearer.domain.ports import Transaction
from keybearer.operations import outbox, upkeep
from keybearer.operations.app import App
from keybearer.settings import load
from tests.attacks.life import Life, Post, wait_until
from tests.attacks.town import API, Town, is_problem
from tests.cli.command import Server, Shell
from tests.people import PASSWORD, SECRET, StandingClock, call_of, person
from tests.servers import PostgresServer

ROOT = Path(__file__).parents[2]
CANARY = "kCanary7Zq8vT3mX1cR7nB5kW9yL2dF6hJ4sG0aP"


# --- a whole life, and then a search for what it left -----------------------------------------


def found_in(blob: bytes, secrets: dict[str, str]) -> list[str]:
    """The names of the secrets that stand in the bytes."""
    return [name for name, secret in secrets.items() if secret.encode() in blob]


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


@pytest.fixture
def secretive(shell: Shell) -> Shell:
    shell.env |= {"KEYBEARER_SECRET": CANARY, "KEYBEARER_TOKEN_MANAGEMENT": "true"}
    return shell


@pytest.fixture
def post() -> Iterator[Post]:
    with Post() as post:
        yield post


def lived(server: Server, post: Post, service: str) -> Life:
    """A life that is over, with every mail sent and every use written."""
    with httpx2.Client(base_url=server.base) as client:
        life = Life(client, service, post)
        life.secrets |= {"service token": service, "SECRET": CANARY}
        life.live()
        metrics = f"{API}/metrics"
        wait_until(lambda: "keybearer_outbox_waiting 0.0" in client.get(metrics).text)
        shown = client.get(metrics).text
        document = client.get(f"{API}/openapi.json").text
        for name, text in {"metrics": shown, "openapi": document}.items():
            assert found_in(text.encode(), life.secrets) == [], name
        for name in ("health/live", "health/ready", "jwks", "docs"):
            assert found_in(client.get(f"{API}/{name}").content, life.secrets) == [], name
    return life


@pytest.mark.parametrize("form", ["json", "console"])
def test_p09_no_secret_is_left_in_any_file_or_log(secretive: Shell, post: Post, form: str) -> None:
    secretive.env["KEYBEARER_SMTP_URL"] = post.url
    service = secretive.service_token()
    with secretive.serving("--access-log", "--log-format", form) as server:
        life = lived(server, post, service)
        while_running = bytes_of(secretive.folder)
        assert server.stop() == 0
    assert len(life.secrets) >= 18
    assert set(while_running) > {"keybearer.db", "keybearer.db-wal", "keybearer.db-serving"}
    assert "request" in server.said
    assert found_in(server.said.encode(), life.secrets) == []
    for when in (while_running, bytes_of(secretive.folder)):
        for name, blob in when.items():
            assert found_in(blob, life.secrets) == [], name


def test_p09_a302_on_postgresql_neither_rows_nor_running_statements_show_a_secret(
    secretive: Shell, post: Post, fresh_postgres: str, postgres_server: PostgresServer
) -> None:
    secretive.env |= {"KEYBEARER_SMTP_URL": post.url, "KEYBEARER_DATABASE_URL": fresh_postgres}
    secretive.ok("migrate")
    service = secretive.service_token()
    with secretive.serving("--access-log") as server:
        life = lived(server, post, service)
        statements = postgres_server.execute(
            "SELECT query FROM pg_stat_activity WHERE application_name = 'keybearer'"
        )
        assert statements
        assert found_in(statements.encode(), life.secrets) == []
        assert server.stop() == 0
    for table in metadata.sorted_tables:
        rows = postgres_server.execute(f"TABLE {table.name}", url=fresh_postgres)
        assert found_in(rows.encode(), life.secrets) == [], table.name
    comments = postgres_server.execute("SELECT * FROM pg_description d JOIN pg_class c "
                                       "ON d.objoid = c.oid WHERE c.relname IN ('users', 'audit')",
                                       url=fresh_postgres)  # fmt: skip
    assert comments == ""
    assert found_in(server.said.encode(), life.secrets) == []


def strings(value: object, seen: set[int] | None = None) -> Iterator[bytes]:
    """Every text that hangs on a value."""
    seen = set() if seen is None else seen
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, str | bytes | bytearray):
        yield value.encode("utf-8", "replace") if isinstance(value, str) else bytes(value)
    elif isinstance(value, dict):
        for each in (*value.keys(), *value.values()):
            yield from strings(each, seen)
    elif isinstance(value, list | tuple | set | frozenset):
        for each in value:
            yield from strings(each, seen)
    elif type(value).__module__.startswith("keybearer."):
        names = [*getattr(value, "__dict__", ()), *getattr(value, "__struct_fields__", ())]
        for kind in type(value).__mro__:
            names += getattr(kind, "__slots__", ())
        for name in names:
            yield from strings(getattr(value, name, None), seen)


async def test_a302_caches_limiters_and_counters_know_digests_alone(town: Town) -> None:
    session = await town.client.post(
        f"{API}/sign-in/email", json={"email": "u1@example.com", "password": PASSWORD}
    )
    secrets = {
        "key": town.k1["key"],
        "access": town.t1["authorization"].removeprefix("Bearer "),
        "session": session.json()["token"],
        "password": PASSWORD,
        "SECRET": SECRET,
    }
    for headers in (town.key1, town.t1, {"authorization": f"Bearer {secrets['session']}"}):
        assert await town.auth.api.authenticate(headers) is not None
    verifier = town.app.verifier
    kept = b"\0".join(strings([verifier.cache, verifier.limiter, verifier.usage]))
    assert town.k1["id"].encode() in kept  # the walk finds what is there
    assert found_in(kept, secrets) == []
    names = " ".join(thread.name for thread in threading.enumerate())
    assert found_in(names.encode(), secrets) == []


async def test_a302_throttles_know_neither_addresses_nor_networks(town: Town) -> None:
    await town.post("/login", email="u1@example.com", password="wrong")
    await town.post("/request-password-reset", email="u1@example.com")
    rows = await town.app.database.read(lambda tx: tx.all(select(metadata.tables["throttles"])))
    assert rows
    kept = b"\0".join(strings([list(row._mapping.values()) for row in rows]))
    assert b"u1@example.com" not in kept
    assert b"127.0.0.1" not in kept


# --- logs and URLs ----------------------------------------------------------------------------


async def test_a303_no_page_tells_the_next_one_its_address(town: Town) -> None:
    await town.post("/request-password-reset", email="u1@example.com")
    (letter, *_) = await outbox.recent(town.app)
    link = letter.text.partition("/api/auth")[2].split()[0]
    for path in (link, f"{link}?callbackURL=/done", "/verify-email?token=x&callbackURL=/done"):
        answer = await town.get(path)
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"


async def test_a303_the_address_of_a_calendar_is_in_no_problem(town: Town) -> None:
    url = (await town.post("/calendar/create", town.t1)).json()["url"]
    token = url.rpartition("/")[2].removesuffix(".ics")
    await town.post("/calendar/revoke", town.t1)
    for method, path in (
        ("GET", f"/calendar/{token}.ics"),
        ("POST", f"/calendar/{token}.ics"),
        ("GET", f"/calendar/{token}"),
        ("GET", f"/calendar/{token}.ics?unknown=1"),
        ("GET", f"/calendar/x/{token}.ics"),
        ("GET", f"/calendar/%2F{token}.ics"),
    ):
        answer = await town.client.request(method, API + path)
        assert answer.status_code in (400, 404, 405), path
        assert token not in answer.text
        assert token not in str(answer.headers)
    details = [str(each.details) for each in await town.events("calendar.created")]
    assert details
    assert token not in "".join(details)


# --- what can be looked at --------------------------------------------------------------------

_SECRET_FIELDS = {"token", "refresh_token", "key", "password", "new_password", "current_password"}
_OPENS_NOTHING = {"signUpEmail", "listSessions", "verifyApiKey"}
"""Their `token` is always null, or a handle; the `key` of a verification is its record."""


def test_a304_no_value_shows_its_secret() -> None:
    auth = Auth("sqlite:////tmp/none.db", secret=SECRET)
    looked_at = 0
    for operation in auth.operations:
        asked = operation.input(**dict.fromkeys(operation.input.__struct_fields__, CANARY))
        assert CANARY not in repr(asked), operation.name
        # Some answer with a value or null: what a value shows is what counts.
        for output in get_args(operation.output) or (operation.output,):
            fields = set(getattr(output, "__struct_fields__", ()))
            if fields & _SECRET_FIELDS and operation.name not in _OPENS_NOTHING:
                looked_at += 1
                values = {name: CANARY if name in _SECRET_FIELDS else "x" for name in fields}
                assert CANARY not in repr(output(**values)), operation.name
    assert looked_at >= 5
    assert CANARY not in repr(Mail(to="a@example.com", subject="s", text=CANARY))


def test_a304_settings_are_masked_however_they_are_looked_at() -> None:
    settings = load(
        {
            "secret": CANARY,
            "smtp_url": f"smtps://me:{CANARY}@mail.example.com",
            "database_url": f"postgresql://me:{CANARY}@db/x",
        },
        environ={},
    )
    for shown in (repr(settings), str(settings), f"{settings}", repr([settings])):
        assert CANARY not in shown


async def test_a304_the_running_parts_show_no_secret(app: App) -> None:
    for shown in (repr(app), repr(app.ring), repr(call_of(app)), repr(app.ring.newest)):
        assert SECRET not in shown
        assert app.ring.newest.signing_secret.hex() not in shown
        assert repr(app.ring.newest.signing_secret) not in shown


# --- errors -----------------------------------------------------------------------------------


async def test_a305_an_error_of_the_database_carries_no_values(town: Town) -> None:
    users = metadata.tables["users"]

    async def body(tx: Transaction) -> None:
        row: Any = await tx.one(select(users).limit(1))
        values = {**row._mapping, "password_hash": CANARY}
        await tx.run(users.insert().values(**values))

    with pytest.raises(IntegrityError) as caught:
        await town.app.database.write(body)
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("table", [table.name for table in metadata.sorted_tables])
async def test_a305_whatever_is_lost_the_answer_tells_nothing_of_it(
    town: Town, clock: StandingClock, table: str
) -> None:
    opened = await town.post("/login", email="u2@example.com", password=PASSWORD)
    await town.app.database.write(lambda tx: tx.run(text(f"ALTER TABLE {table} RENAME TO lost")))
    clock.advance(31_000)  # nothing is answered from memory
    answers = [
        await town.post("/login", email="u1@example.com", password=PASSWORD),
        await town.post("/sign-up/email", email="n@example.com", password=PASSWORD, name="N"),
        await town.post("/request-password-reset", email="u1@example.com"),
        await town.post("/refresh", refreshToken=opened.json()["refreshToken"]),
        await town.create(name="x"),
        await town.post("/api-key/delete", town.t1, keyId=town.k1["id"]),
        await town.post("/revoke-other-sessions", town.t1),
        await town.get("/api-key/list", town.t1),
        await town.get("/api-key/usage", town.t1, keyId=town.k1["id"]),
        await town.get("/api-key/activity", town.t1, keyId=town.k1["id"]),
        await town.get("/audit", town.t1),
        await town.get("/get-session", town.t1),
        await town.get("/jwks"),
        await town.get("/forward", {"x-api-key": town.k2["key"]}),
        await town.get("/calendar", town.t1),
        await town.post("/api-key/verify", {"authorization": "Bearer kbs_no"}, key="x"),
    ]
    for answer in answers:
        assert answer.status_code != 500, answer.text
        if answer.status_code == 503:
            assert is_problem(answer, 503, "UNAVAILABLE")
            assert int(answer.headers["retry-after"]) > 0
            assert table not in answer.text.replace(answer.json()["instance"], "")
            assert answer.json()["requestId"] == answer.headers["x-request-id"]
        elif answer.request.url.path != f"{API}/api-key/verify":
            assert answer.status_code == 200, answer.text
    assert any(answer.status_code == 503 for answer in answers) or table in UNASKED


UNASKED = {"service_tokens", "outbox", "calendar_feeds", "foreign_schemes", "imported"}
"""Tables that none of these requests needs; that nothing was imported is known already."""


async def test_a305_a_mail_server_that_is_gone_is_no_ones_answer(ready_url: str) -> None:
    auth = Auth(ready_url, secret=SECRET, smtp_url="smtp://user:p%40ss@127.0.0.1:1")
    async with auth.lifespan():
        transport = httpx2.ASGITransport(app=auth.mount(None), client=("127.0.0.1", 5000))  # type: ignore[arg-type]
        async with httpx2.AsyncClient(
            transport=transport, base_url="http://127.0.0.1:8000"
        ) as client:
            answer = await client.post(
                f"{API}/sign-up/email",
                json={"name": "N", "email": "n@example.com", "password": PASSWORD},
            )
            assert answer.status_code == 200, answer.text


# --- files ------------------------------------------------------------------------------------


def test_a309_every_file_is_this_users_alone_whatever_the_umask(shell: Shell) -> None:
    before = os.umask(0)
    try:
        shell.user()
        with shell.serving() as server:
            assert httpx2.get(f"{server.base}{API}/health/ready").status_code == 200
            files = {
                file.name: stat.S_IMODE(file.stat().st_mode) for file in shell.folder.iterdir()
            }
            assert server.stop() == 0
    finally:
        os.umask(before)
    names = {
        "keybearer.db",
        *(f"keybearer.db-{end}" for end in ("wal", "shm", "serving", "secret")),
    }
    assert files == dict.fromkeys(names, 0o600)


@pytest.fixture
async def on_file(tmp_path: Path, clock: StandingClock) -> AsyncIterator[Auth]:
    auth = Auth(f"sqlite:///{tmp_path}/k.db", secret=SECRET, token_management=True, clock=clock)
    async with auth.lifespan():
        yield auth


async def test_a309_what_was_deleted_is_gone_from_the_bytes(
    on_file: Auth, tmp_path: Path, clock: StandingClock
) -> None:
    app = await on_file.running()
    owner = await person(app)
    from keybearer.operations.keyends import RevokeKey, revoke_api_key
    from keybearer.operations.keys import CreateKey, create_api_key

    call = call_of(app)
    made = [
        await create_api_key(call, CreateKey(user_id=owner.id, description=f"{CANARY} {number}"))
        for number in range(50)
    ]
    for key in made:
        await revoke_api_key(call_of(app), RevokeKey(key_id=key.id))

    async def checkpoint(tx: Transaction) -> None:
        await tx.one(text("PRAGMA wal_checkpoint"))

    clock.advance(app.settings.key_retention + 1)
    assert CANARY.encode() in b"".join(bytes_of(tmp_path).values())
    assert await upkeep.forget_ended(app) == 50
    await on_file.stop()  # the last one out writes everything back into the file
    assert set(bytes_of(tmp_path)) == {"k.db", "k.db-serving"}
    assert CANARY.encode() not in bytes_of(tmp_path)["k.db"]


def test_a314_a_secret_that_others_may_read_stops_the_start(shell: Shell) -> None:
    shell.user()
    (shell.folder / "keybearer.db-secret").chmod(0o644)
    server = shell.start("--port", "0")
    assert server.end() == 1
    assert server.said.count("\n") == 1
    assert "may be read by others: chmod 600" in server.said


def test_a314_the_package_holds_the_package_alone(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "keybearer/auth.py" in names
    for name in names:
        assert name.startswith(("keybearer/", "keybearer-")), name
        assert not name.endswith((".pyc", ".db", ".pem", ".env", "-secret")), name


@pytest.mark.parametrize(
    "name",
    [".env", "keybearer.db", "keybearer.db-wal", "keybearer.db-secret", "a/__pycache__/x.pyc"],
)
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout")
def test_a314_git_never_takes_a_secret_along(name: str) -> None:
    ignored = subprocess.run(["git", "check-ignore", "-q", name], cwd=ROOT, check=False)
    assert ignored.returncode == 0
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert name not in {Path(file).name for file in listed.stdout.splitlines()}
