import asyncio
import hashlib
import json
import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from pysqlite3 import dbapi2 as sqlite

from keybearer import Auth
from keybearer.adapters.sql.coherence import SqlLog
from keybearer.cli.doctor import of_database
from keybearer.settings import Settings, load
from tests.cli.command import Shell
from tests.servers import PostgresServer, run_redis

SECRET = "Zq8vT3mX1cR7nB5kW9yL2dF6hJ4sG0aP"


def found(shell: Shell) -> dict[str, Any]:
    result = shell.run("doctor", "--json")
    report = json.loads(result.stdout)
    assert result.exit_code == (0 if report["healthy"] else 1)
    return {finding["what"]: finding for finding in report["findings"]}


def states(shell: Shell) -> dict[str, str]:
    return {what: finding["state"] for what, finding in found(shell).items()}


def test_nothing_is_made_by_looking(shell: Shell) -> None:
    before = found(shell)
    assert before["database"]["text"].endswith("is not there yet: `serve` makes it")
    assert list(shell.folder.iterdir()) == []


def test_a_good_house_is_ok(shell: Shell) -> None:
    shell.env["KEYBEARER_TOKEN_MANAGEMENT"] = "true"
    shell.user()
    seen = states(shell)
    assert set(seen.values()) == {"ok"}
    assert set(seen) == {
        "settings", "token management", "files", "secret", "database", "serving", "usage",
        "audit trail", "redis", "mail", "clock",
    }  # fmt: skip
    lines = shell.ok("doctor").stdout.splitlines()
    assert len(lines) == len(seen)
    assert all(line.startswith("ok") for line in lines)


async def test_it_tells_how_many_serve_and_how_many_are_silent(
    tmp_path: Path, redis_url: str
) -> None:
    settings = load(
        {"database_url": f"sqlite:///{tmp_path}/k.db", "redis_url": redis_url}, environ={}
    )
    nodes = [Auth(accounts=False, **asked(settings)) for _ in range(2)]
    async with nodes[0].lifespan(), nodes[1].lifespan():
        for node in nodes:
            await (await node.running()).verifier.lease.hold()
        (serving,) = [each async for each in of_database(settings) if each.what == "serving"]
        assert serving.state == "ok"
        assert serving.text.startswith("2 processes serve this database as http://")
        assert nodes[0].node is not None
        await silence(nodes[0])
        (serving,) = [each async for each in of_database(settings) if each.what == "serving"]
        assert serving.state == "warn"
        assert "1 of them does not answer now" in serving.text


def asked(settings: Settings) -> dict[str, Any]:
    return {"database": settings.database_url, "redis_url": settings.redis_url}


async def silence(auth: Auth) -> None:
    """Ends its renewals; then a change misses its answer."""
    assert auth._jobs is not None
    assert auth.node is not None
    auth._jobs.stopping.set()
    await asyncio.wait(auth._jobs.tasks, timeout=60)
    app = await auth.running()
    await SqlLog(app.database, app.clock).suspect([auth.node.id], 1)


def test_management_that_is_off_is_told(shell: Shell) -> None:
    finding = found(shell)["token management"]
    assert finding["state"] == "warn"
    assert (
        finding["text"]
        == "off here: the key endpoints answer 404: set KEYBEARER_TOKEN_MANAGEMENT=true"
    )


def test_what_lies_beside_a_linked_file_is_found(shell: Shell) -> None:
    shell.user()
    (shell.folder / "links").mkdir()
    (shell.folder / "links" / "a.db").symlink_to(shell.folder / "keybearer.db")
    shell.env["KEYBEARER_DATABASE_URL"] = f"sqlite:///{shell.folder}/links/a.db"
    secret = shell.folder / "keybearer.db-secret"
    assert states(shell)["secret"] == "ok"
    secret.chmod(0o644)
    assert found(shell)["files"]["text"].startswith(f"{secret} may be read by others")


def test_files_that_others_may_read_fail(shell: Shell) -> None:
    shell.user()
    file = shell.folder / "keybearer.db"
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o644)
    assert found(shell)["files"]["text"] == f"{file} may be read by others: chmod 600 {file}"
    assert shell.run("doctor").exit_code == 1


@pytest.mark.parametrize(
    ("secret", "state"),
    [
        (SECRET, "ok"),
        (f"{SECRET},{SECRET[::-1]}", "ok"),
        ("an-old-oak-and-an-old-door-and-an-old-road", "warn"),
    ],
)
def test_a_secret_of_words_is_warned_of(shell: Shell, secret: str, state: str) -> None:
    shell.env["KEYBEARER_SECRET"] = secret
    assert states(shell)["secret"] == state


def test_an_example_of_a_secret_fails(shell: Shell) -> None:
    shell.env["KEYBEARER_SECRET"] = "change-me-change-me-change-me-change-me"
    assert states(shell)["settings"] == "fail"


def test_a_changed_trail_fails(shell: Shell) -> None:
    shell.user()
    connection = sqlite.connect(str(shell.folder / "keybearer.db"))
    connection.execute("UPDATE audit SET event = 'user.praised'")
    connection.commit()
    connection.close()
    assert states(shell)["audit trail"] == "fail"
    result = shell.run("audit", "verify")
    assert result.exit_code == 1
    assert "event 1: changed" in result.stderr


def test_a_sound_trail_is_counted_and_its_heads_shown(shell: Shell) -> None:
    shell.user()
    assert shell.ok("audit", "verify").stderr == "the trail holds: 1 events\n"
    assert shell.json("audit", "verify") == {"valid": True, "events": 1, "faults": []}
    heads = shell.json("audit", "heads")["heads"]
    assert [head["seq"] for head in heads if head["seq"]] == [1]
    assert "CHAIN" in shell.ok("audit", "heads").stdout
    assert "user.created" in shell.ok("audit", "list", "--owner", "ann@example.com").stdout


def test_a_file_that_is_no_database_fails(shell: Shell) -> None:
    file = shell.folder / "keybearer.db"
    file.write_bytes(b"not a database at all" * 300)
    file.chmod(0o600)
    finding = found(shell)["database"]
    assert finding["state"] == "fail"
    assert finding["text"].startswith(f"DATABASE_URL: {file} is no SQLite database")
    assert "sqlalche.me" not in finding["text"]


def test_what_cannot_be_reached_fails(shell: Shell) -> None:
    shell.env |= {
        "KEYBEARER_REDIS_URL": "redis://127.0.0.1:1",
        "KEYBEARER_SMTP_URL": "smtp://127.0.0.1:1",
        "KEYBEARER_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",
        "KEYBEARER_SECRET": SECRET,
    }
    assert "PostgreSQL at 127.0.0.1:1 cannot be reached" in found(shell)["database"]["text"]
    seen = states(shell)
    assert (seen["redis"], seen["mail"], seen["database"]) == ("fail", "fail", "fail")


def test_a_place_for_usage_is_looked_for_and_not_made(shell: Shell, tmp_path: Path) -> None:
    shell.user()
    folder = tmp_path / "spill"
    shell.env["KEYBEARER_SPILL_DIR"] = str(folder)
    assert states(shell)["usage"] == "ok"
    assert not folder.exists()
    folder.mkdir()
    path = os.fsencode((shell.folder / "keybearer.db").resolve())
    name = f"sqlite-{hashlib.sha256(path).hexdigest()[:16]}-usage-left"
    (folder / name).write_bytes(b"12345")
    assert "5 bytes wait" in found(shell)["usage"]["text"]
    shell.env["KEYBEARER_SPILL_DIR"] = "/dev/null/spill"
    assert states(shell)["usage"] == "fail"


def test_redis_that_answers_is_ok(shell: Shell, redis_url: str) -> None:
    shell.env["KEYBEARER_REDIS_URL"] = redis_url
    finding = found(shell)["redis"]
    assert finding["state"] == "ok"
    assert finding["text"].endswith(", maxmemory-policy noeviction")


def test_redis_that_evicts_fails(shell: Shell) -> None:
    with run_redis("--maxmemory-policy", "allkeys-lru") as url:
        shell.env["KEYBEARER_REDIS_URL"] = url
        finding = found(shell)["redis"]
    assert finding["state"] == "fail"
    assert "set its maxmemory-policy to noeviction" in finding["text"]


def test_what_is_not_redis_fails(shell: Shell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def greet() -> None:
            line, _ = other.accept()
            with line:
                line.recv(64)
                line.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        threading.Thread(target=greet, daemon=True).start()
        shell.env["KEYBEARER_REDIS_URL"] = f"redis://127.0.0.1:{other.getsockname()[1]}"
        assert states(shell)["redis"] == "fail"


def test_a_public_address_needs_its_name(shell: Shell) -> None:
    shell.env["KEYBEARER_HOST"] = "0.0.0.0"  # noqa: S104 -- that is what is warned of
    assert states(shell)["address"] == "warn"
    shell.env["KEYBEARER_BASE_URL"] = "https://auth.example.com"
    seen = states(shell)
    assert "address" not in seen
    assert seen["mail"] == "warn"


def test_postgresql_is_looked_at_as_well(shell: Shell, fresh_postgres: str) -> None:
    shell.env |= {"KEYBEARER_DATABASE_URL": fresh_postgres, "KEYBEARER_SECRET": SECRET}
    assert states(shell)["database"] == "warn"  # empty
    shell.ok("migrate")
    seen = found(shell)
    assert seen["database"]["text"].startswith("PostgreSQL 1")
    assert (seen["database"]["state"], seen["audit trail"]["state"]) == ("ok", "ok")


def test_commits_that_may_be_lost_are_told_of(
    shell: Shell, fresh_postgres: str, postgres_server: PostgresServer
) -> None:
    shell.env |= {"KEYBEARER_DATABASE_URL": fresh_postgres, "KEYBEARER_SECRET": SECRET}
    shell.ok("migrate")
    assert "commits" not in found(shell)
    name = fresh_postgres.rpartition("/")[2]
    postgres_server.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = off')
    finding = found(shell)["commits"]
    assert finding["state"] == "warn"
    assert finding["text"].startswith("synchronous_commit is off")


def test_migrate_says_from_where_to_where_and_does_it_once(
    shell: Shell, database_url: str, tmp_path: Path
) -> None:
    shell.env |= {"KEYBEARER_DATABASE_URL": database_url, "KEYBEARER_SECRET": SECRET}
    assert shell.ok("migrate").stderr.startswith("migrated from an empty database to 0")
    assert shell.ok("migrate").stderr.startswith("the database has version 0")
    assert shell.json("migrate")["changed"] is False


def test_the_description_of_the_api_is_printed(shell: Shell) -> None:
    assert "/api-key/create" not in shell.json("openapi")["paths"]  # it would answer 404
    shell.env["KEYBEARER_TOKEN_MANAGEMENT"] = "true"
    document = shell.json("openapi")
    assert document["openapi"].startswith("3.1")
    assert "/api-key/create" in document["paths"]
    assert shell.ok("openapi").stdout.startswith("{\n")
