"""`keybearer serve`: the server, checked before it starts.

    parent   settings ▸ database and schema ▸ serving lock ▸ port ▸ fork ▸ waits, passes signals on
    workers  Auth ▸ lifespan ▸ requests ▸ SIGTERM: finish what is under way ▸ write usage ▸ exit 0

What can go wrong is found in the parent, where it is one line and exit code 1. When the only
worker dies the server ends with exit code 1 and is not started again: that is the supervisor's
work, which would else see a server that never comes up. Of many, the one that died is replaced.

A client that is slow with its headers, or silent between two requests, is cut off after 30 s, one
that is slow with its body after 10 s (`SlowBodies`); more than 100 headers or 64 KB of them are
answered with 431.
"""

import contextlib
import functools
import os
import resource
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keybearer.cli.output import refusals, say

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from keybearer.auth import Auth
    from keybearer.settings import Settings

IDLE_SECONDS = 30
DRAIN_SECONDS = 30
MAX_HEADER_BYTES = 65_536
CONNECTIONS = 8_192
MAX_FOLDER_BYTES = 70
"""For sockets in a folder below it: their names have 104 bytes on some systems, 108 on Linux."""

SPARE_FILES = 100
"""Open files that no connection may take: the database's, mail, the server's own."""


@click.command()
@click.option("--host", help="Address to listen on; else HOST, 127.0.0.1.")
@click.option("--port", type=click.IntRange(0, 65_535), help="Else PORT, 8000; 0: a free one.")
@click.option("--workers", type=click.IntRange(1, 256), help="Else WORKERS, 1; more need Redis.")
@click.option("--examples", is_flag=True, help="Mount the example endpoints of a checkout.")
@click.option("--access-log", is_flag=True, help="Log each request: method, path, status, time.")
@click.option("--log-format", type=click.Choice(["auto", "json", "console"]), default="auto",
              help="auto: console on a terminal, else JSON.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Log and refuse in JSON.")
def serve(
    *,
    host: str | None,
    port: int | None,
    workers: int | None,
    examples: bool,
    access_log: bool,
    log_format: str,
    as_json: bool,
) -> None:
    """Serves the API until SIGTERM or Ctrl-C."""
    if as_json or log_format == "auto":
        log_format = "console" if sys.stderr.isatty() and not as_json else "json"
    keywords = {"host": host, "port": port, "workers": workers}
    with refusals(as_json=as_json):
        keywords = settled(keywords)
        settings, warning = _rehearse(keywords, examples=examples)
        _announce(settings, warning, examples=examples)
        with _meeting_place(settings) as folder:
            keywords["metrics_dir"] = folder
            _run(keywords, settings, examples=examples, access_log=access_log, form=log_format)


def settled(keywords: dict[str, Any]) -> dict[str, Any]:
    """The keywords with the port that will be, and the BASE_URL that follows it unless set."""
    from keybearer.settings import load, variables

    env_file = Path(".env")
    settings = load(keywords, dotenv=env_file)
    port = _free_port(settings.host, settings.port)
    is_set = "KEYBEARER_BASE_URL" in variables(dotenv=env_file)
    base_url = None if is_set else f"http://127.0.0.1:{port}"
    return {**keywords, "port": port, "base_url": base_url}


def _free_port(host: str, port: int) -> int:
    """Binds for a moment, to say what is wrong in one line, and gives the port.

    Raises:
        Misuse: the port is taken, or the address is not ours.
    """
    from keybearer.domain.errors import Misuse

    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family) as probe:
            # As the server will: connections in TIME_WAIT are no hindrance. Not SO_REUSEPORT:
            # that would let two servers share a port, each with half of the requests.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            probe.listen(1)
            return int(probe.getsockname()[1])
    except OSError as error:
        raise Misuse(
            f"{host}:{port} cannot be listened on ({error.strerror or error}); "
            "choose another with --host and --port"
        ) from None


def _rehearse(keywords: dict[str, Any], *, examples: bool) -> "tuple[Settings, str | None]":
    """Does what the worker will do, where an error is still one line; tells what is amiss.

    Raises:
        Misuse: wrong settings, wrong schema, a file that cannot be written, a second process,
            no examples.
        Unavailable: the database cannot be reached.
    """
    import asyncio

    from keybearer.auth import Auth

    visitor = Auth(serving=False, **keywords)
    if examples:
        _examples_of(visitor)
    return visitor.settings, asyncio.run(_try(visitor))


async def _try(visitor: "Auth") -> str | None:
    from keybearer.adapters.sql.database import open_database
    from keybearer.node import check_redis

    await visitor.start()  # the schema, and the secret beside the file
    await visitor.stop()
    database, lock = open_database(
        visitor.settings.database_url, shared=visitor.settings.redis_url is not None
    )
    try:
        await lock.acquire()
        await lock.release()
    finally:
        await database.close()
    url = visitor.settings.redis_url
    return None if url is None else await check_redis(url)


@contextlib.contextmanager
def _meeting_place(settings: "Settings") -> Iterator[str | None]:
    """Where the workers find each other, for a scrape to have the figures of all of them."""
    if settings.metrics_dir is not None:
        yield settings.metrics_dir
        return
    folder, why = None, "the folder of TMPDIR has too long a name"
    if len(os.fsencode(tempfile.gettempdir())) <= MAX_FOLDER_BYTES:
        try:
            folder = tempfile.mkdtemp(prefix="keybearer-workers-")
        except OSError as error:
            why = str(error)
    if folder is None:
        say(f"warning:   each scrape has one worker's figures alone: set METRICS_DIR ({why})")
        yield None
        return
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _examples_of(auth: "Auth") -> "ASGIApp":
    from keybearer.domain.errors import Misuse

    places = (Path.cwd(), Path(__file__).parents[3])
    place = next((each for each in places if (each / "examples/endpoints.py").is_file()), None)
    if place is None:
        raise Misuse(f"--examples: {places[0]} has no examples/endpoints.py; run it in a checkout")
    if str(place) not in sys.path:
        sys.path.insert(0, str(place))
    from importlib import import_module

    made: ASGIApp = import_module("examples.endpoints").create_app(auth)
    return made


def _announce(settings: "Settings", warning: str | None, *, examples: bool) -> None:
    base = settings.base_url
    say(f"keybearer serves on http://{_shown(settings.host)}:{settings.port} as {base}")
    locale = settings.locales[0]
    say(f"sign up:   {base}/{locale}/sign-up")
    if settings.token_management:
        say(f"API keys:  {base}/{locale}/account/api-keys")
    else:
        say("API keys:  their pages are off: set KEYBEARER_TOKEN_MANAGEMENT=true")
    say(f"reference: {base}/api/auth/docs")
    if settings.smtp_url is None:
        say(f"mail:      printed here, and shown at {base}/dev/outbox (no KEYBEARER_SMTP_URL)")
    if settings.workers > 1:
        say(f"workers:   {settings.workers} processes, which share their limits over Redis")
    if warning is not None:
        say(f"warning:   {warning}: until it is back, each process counts its share")
    if examples:
        say(f'examples:  curl -H "Authorization: Bearer $KEY" {base}/api/protected-endpoint')


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _run(
    keywords: dict[str, Any], settings: "Settings", *, examples: bool, access_log: bool, form: str
) -> None:
    import logging.config

    from granian import Granian
    from granian.constants import HTTPModes, Interfaces
    from granian.http import HTTP1Settings
    from granian.log import LogLevels

    from keybearer.cli.ending import Wake, end_at_once
    from keybearer.cli.logs import configuration
    from keybearer.cli.worker import application

    logs = configuration("console" if form == "console" else "json", settings)
    logging.config.dictConfig(logs)
    # More than there are files for would be accepted in vain, again and again, with all its might.
    files = _allow_files()
    connections = min(CONNECTIONS, max(files - SPARE_FILES, files // 4))
    server = Granian(
        "keybearer.cli.worker",
        address=settings.host,
        port=settings.port,
        interface=Interfaces.ASGI,
        workers=settings.workers,
        http=HTTPModes.http1,
        websockets=False,
        backlog=2_048,
        backpressure=connections,
        http1_settings=HTTP1Settings(
            header_read_timeout=IDLE_SECONDS * 1000, max_buffer_size=MAX_HEADER_BYTES
        ),
        log_level=LogLevels.warning,
        log_dictconfig=logs,
        workers_kill_timeout=DRAIN_SECONDS,
        respawn_failed_workers=settings.workers > 1,
    )
    made = _examples_of if examples else None
    load = functools.partial(
        application, keywords, examples=made, access_log=access_log, parent=os.getpid()
    )
    # A closed terminal is an end, not a wish for new workers: those would find the lock taken.
    closed = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # as nohup says
    ends = _ignore if closed else server.signal_handler_interrupt
    server.signal_handler_reload = ends  # type: ignore[method-assign] # asked for at its start
    server.main_loop_interrupt = Wake(lambda: server.interrupt_signal)  # type: ignore[assignment]
    os.register_at_fork(after_in_child=end_at_once)
    try:
        server.serve(target_loader=load, wrap_loader=False)
    except SystemExit:
        # Ctrl-C goes to the worker as well: that it ended before it was told to is no failure.
        if not server.interrupt_signal:
            raise


def _ignore(*_: object) -> None:
    """A signal that changes nothing."""


def _allow_files() -> int:
    """As many open files as this user may have, and how many that is: each connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return max(soft, wanted)
