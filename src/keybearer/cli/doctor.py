"""`keybearer doctor`: look at everything a server needs, and say what to mend.

Each check gives findings; none of them changes anything, and one that cannot be done is a finding
as well. The lines: ok, warn (it works, but read this), fail (mend this).
"""

import asyncio
import contextlib
import math
import shutil
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click
import msgspec

from keybearer.cli.operator import has_base_url, missing_file
from keybearer.cli.output import answer, command, encode, visible

if TYPE_CHECKING:
    from keybearer.adapters.sql.postgres import PostgresDatabase
    from keybearer.adapters.sql.serving import ServingLock
    from keybearer.adapters.sql.sqlite import SqliteDatabase
    from keybearer.settings import Settings

MAX_WALK = 200_000
MAX_SKEW_MS = 2_000
MIN_FREE_BYTES = 200 * 1024 * 1024
SECONDS = 3.0
ANSWER_SECONDS = 1.5
"""Three times as long as a node takes to say that it is there."""
MAKE_ONE = "set KEYBEARER_SECRET to the output of: openssl rand -base64 48"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What a check found; the text of a warning or failure says what to do."""

    state: Literal["ok", "warn", "fail"]
    what: str
    text: str


def ok(what: str, text: str) -> Finding:
    """All is well."""
    return Finding(state="ok", what=what, text=text)


def warn(what: str, text: str) -> Finding:
    """It works, but somebody should read this."""
    return Finding(state="warn", what=what, text=text)


def bad(what: str, text: str) -> Finding:
    """This must be mended."""
    return Finding(state="fail", what=what, text=text)


@command(None, "doctor")
async def doctor(*, as_json: bool) -> None:
    """Checks settings, database, files, secrets, Redis, mail and clock; changes nothing."""
    findings = []
    async for finding in examine():
        findings.append(finding)
        if not as_json:
            colour = {"ok": "green", "warn": "yellow", "fail": "red"}[finding.state]
            word = click.style(f"{finding.state:<4}", fg=colour)
            answer(f"{word}  {finding.what:<16}  {visible(finding.text)}")
    failed = any(finding.state == "fail" for finding in findings)
    if as_json:
        answer(encode({"healthy": not failed, "findings": findings}))
    if failed:
        sys.exit(1)


async def examine() -> AsyncIterator[Finding]:
    """Every finding, in the order in which things depend on each other."""
    from keybearer.domain.errors import KeybearerError
    from keybearer.settings import load

    try:
        settings = load(dotenv=Path(".env"))
    except KeybearerError as error:
        yield bad("settings", str(error))
        return
    address = None if has_base_url() else await _address(settings)
    yield ok("settings", f"served as {address or settings.base_url}")
    for finding in (*of_reach(settings), *of_files(settings), *of_secret(settings)):
        yield finding
    async for finding in of_database(settings):
        yield finding
    yield await of_redis(settings)
    yield await asyncio.to_thread(of_mail, settings)
    for finding in await of_clock():
        yield finding


def of_reach(settings: "Settings") -> Iterator[Finding]:
    """Who can reach it, and what they find there."""
    if settings.token_management:
        yield ok("token management", "on: people make and manage their keys themselves")
    else:
        yield warn(
            "token management",
            "off here: the key endpoints answer 404: set KEYBEARER_TOKEN_MANAGEMENT=true",
        )
    if settings.host not in ("127.0.0.1", "localhost", "::1") and not settings.secure:
        yield warn(
            "address",
            f"listens on {settings.host}, but BASE_URL is {settings.base_url}: people elsewhere "
            "get 400 INVALID_HOST; put TLS in front and set KEYBEARER_BASE_URL=https://…",
        )


def of_files(settings: "Settings") -> Iterator[Finding]:
    """The SQLite file and what lies beside it: ours alone, and room to grow."""
    if settings.sqlite_path is None:
        return
    file = Path(settings.sqlite_path).resolve()
    if not file.parent.is_dir():
        yield bad("files", f"the folder {file.parent} is missing: mkdir -p {file.parent}")
        return
    sound = True
    for each in (file, *(Path(f"{file}{end}") for end in ("-wal", "-shm", "-serving", "-secret"))):
        if each.exists() and each.stat().st_mode & 0o077:
            sound = False
            yield bad("files", f"{each} may be read by others: chmod 600 {each}")
    if sound and file.exists():
        yield ok("files", f"{file} and what lies beside it are this user's alone")
    free = shutil.disk_usage(file.parent).free
    if free < MIN_FREE_BYTES:
        yield warn("disk", f"{free // 1_048_576} MB free at {file.parent}: writes fail when full")


def of_secret(settings: "Settings") -> Iterator[Finding]:
    """Whether SECRET is one."""
    file = _secret_file(settings)
    if not settings.secret and file is not None:
        if file.exists():
            yield ok("secret", f"kept in {file}: back it up together with the database")
        else:
            yield ok("secret", f"will be made at the first start, in {file}")
        return
    weak = [secret for secret in settings.secret if _bits(secret) < 128]
    if weak:
        yield warn("secret", f"SECRET looks like words, not like random bytes: {MAKE_ONE}")
    elif len(settings.secret) > 1:
        yield ok(
            "secret", f"{len(settings.secret)} listed: what was made with old ones still holds"
        )
    else:
        yield ok("secret", "set")


def _secret_file(settings: "Settings") -> Path | None:
    path = settings.sqlite_path
    return None if path is None else Path(f"{Path(path).resolve()}-secret")


def _bits(text: str) -> float:
    """Shannon's entropy of the characters, times their number: an upper bound."""
    n = len(text)
    return sum(-count * math.log2(count / n) for count in Counter(text).values())


async def of_database(settings: "Settings") -> AsyncIterator[Finding]:
    """Reachable, of this version, sound; who serves it; whether the trail holds."""
    from keybearer.adapters.sql.database import open_database
    from keybearer.domain.errors import KeybearerError

    missing = missing_file(settings)
    if missing is not None:
        yield ok("database", f"{missing} is not there yet: `serve` makes it")
        return
    try:
        database, lock = open_database(settings.database_url)
    except KeybearerError as error:
        yield bad("database", str(error))
        return
    try:
        async for finding in _of_open(settings, database, lock):
            yield finding
    except KeybearerError as error:
        yield bad("database", str(error))
    finally:
        await database.close()


async def _address(settings: "Settings") -> str | None:
    """What the serving process is served as; what cannot be read is told as the database's."""
    from keybearer.adapters.sql.coherence import read_address
    from keybearer.adapters.sql.database import open_database
    from keybearer.domain.errors import KeybearerError

    if missing_file(settings) is not None:
        return None
    with contextlib.suppress(KeybearerError):
        database, _ = open_database(settings.database_url)
        try:
            return await read_address(database)
        finally:
            await database.close()
    return None


async def _of_open(
    settings: "Settings", database: "SqliteDatabase | PostgresDatabase", lock: "ServingLock"
) -> AsyncIterator[Finding]:
    from keybearer.adapters.sql.about import about, careless, intact
    from keybearer.adapters.sql.database import versions

    has, wanted = await versions(database)
    name, their_now = await about(database)
    if has is None:
        yield warn("database", f"{name}, empty: run `keybearer migrate`")
        return
    if has != wanted:
        yield bad("database", f"{name}, version {has} of {wanted}: run `keybearer migrate`")
        return
    fault = intact(database)
    if fault is not None:
        yield bad("database", f"{name}: the file is damaged ({fault}): restore a backup")
        return
    yield ok("database", f"{name}, version {has}")
    commit = await careless(database)
    if commit is not None:
        yield warn(
            "commits",
            f"synchronous_commit is {commit}: keybearer sets it to on for itself; what else writes "
            "to this database may lose what was committed",
        )
    if their_now is not None and abs(their_now - time.time() * 1000) > MAX_SKEW_MS:
        yield warn("clock", "differs from the database server's by over 2 s: run NTP on both")
    yield await _of_serving(settings, database, lock)
    yield await _of_spill(settings, database)
    yield await _of_trail(settings, database)


async def _of_serving(
    settings: "Settings", database: "SqliteDatabase | PostgresDatabase", lock: "ServingLock"
) -> Finding:
    from keybearer.adapters.clock import SystemClock
    from keybearer.adapters.sql.coherence import SqlLog

    if not await lock.held_elsewhere():
        return ok("serving", "no process serves it now")
    address = await _address(settings)
    log = SqlLog(database, SystemClock())
    members = await log.members()
    asked = {member for member in members if member.suspicion is not None}
    if asked:  # as whenever one starts: who is there says so soon
        await asyncio.sleep(ANSWER_SECONDS)
        asked &= set(await log.members())
    serve = "a process serves" if len(members) < 2 else f"{len(members)} processes serve"
    found = f"{serve} this database as {address}"
    if has_base_url() and address != settings.base_url:
        return warn("serving", f"{found}, by other settings than these: run the doctor with its")
    if asked:
        return warn("serving", f"{found}; {len(asked)} of them does not answer now")
    return ok("serving", found)


async def _of_spill(settings: "Settings", database: "SqliteDatabase | PostgresDatabase") -> Finding:
    from keybearer.node import journals_of

    try:
        waiting = (await journals_of(settings, database)).look()
    except OSError as error:
        reason = f"{error.filename}: {error.strerror}"
        return bad("usage", f"could not wait for a lost database: {reason}: set SPILL_DIR")
    if waiting:
        return ok("usage", f"{waiting} bytes wait on the disk: the server writes them")
    return ok("usage", "none waits; there is a place on the disk if the database is lost")


async def _of_trail(settings: "Settings", database: "SqliteDatabase | PostgresDatabase") -> Finding:
    from keybearer.adapters.sql import audit
    from keybearer.domain.credentials import PepperRing

    secrets = settings.secret
    file = _secret_file(settings)
    if not secrets and file is not None and file.exists():
        secrets = tuple(file.read_text().split())
    if not secrets:
        return warn("audit trail", "cannot be checked without the secret it was made with")
    ring = PepperRing([secret.encode() for secret in secrets])
    length = sum(head.seq for head in await database.read(audit.heads))
    if length > MAX_WALK:
        return ok("audit trail", f"{length} events: `keybearer audit verify` walks them")
    count, faults = await database.read(lambda tx: audit.verify(tx, ring))
    if faults:
        return bad("audit trail", f"does not hold in {len(faults)} places: keybearer audit verify")
    return ok("audit trail", f"holds: {count} events")


async def of_redis(settings: "Settings") -> Finding:
    """Whether Redis answers and can be relied on, where it is set."""
    from keybearer.domain.errors import Misuse, Unavailable

    if settings.redis_url is None:
        return ok("redis", "not set: one process serves")
    try:
        from keybearer.adapters.redis.connection import check, close, connect

        client = connect(settings.redis_url)
        try:
            server = await check(client, settings.redis_url)
        finally:
            await close(client)
    except (Misuse, Unavailable) as error:
        return bad("redis", str(error))
    several = "" if server.nodes == 1 else f", {server.nodes} nodes"
    return ok("redis", f"{server.name} {server.version}{several}, maxmemory-policy noeviction")


def of_mail(settings: "Settings") -> Finding:
    """Whether the mail server takes us; no mail is sent."""
    from keybearer.adapters.mail import MailFailed, SmtpSender
    from keybearer.domain.errors import Misuse

    if settings.smtp_url is None:
        if settings.secure:
            return warn("mail", "only printed: people get no links; set KEYBEARER_SMTP_URL")
        return ok("mail", "printed, and shown at /dev/outbox: for development")
    try:
        sender = SmtpSender(settings.smtp_url, settings.mail_from, timeout=SECONDS)
        sender.check()
    except (Misuse, MailFailed) as error:
        return bad("mail", f"{error}: check KEYBEARER_SMTP_URL")
    return ok("mail", f"{sender!r} takes our mail")


async def of_clock() -> list[Finding]:
    """Whether the wall clock is sane, and runs as the boot clock does."""
    from keybearer.adapters.clock import SystemClock

    year = time.gmtime().tm_year
    if not 2026 <= year < 2100:
        return [bad("clock", f"it says {year}: set it, or every key is expired or for ever")]
    clock = SystemClock()
    await asyncio.sleep(0.3)
    if abs(clock.drift()) > 20:
        return [warn("clock", "it is being moved while we look: let NTP finish")]
    return [ok("clock", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))]
