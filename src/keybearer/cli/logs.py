"""The server's log: events on stderr, JSON or for a terminal, without secrets.

Whatever is logged, by us or a library, with a traceback or without, goes through one formatter,
and the last thing it does is to take out what looks like a credential: the run of letters and
digits that keys, session tokens and links are made of, JWTs, `Bearer …`, passwords in URLs, and
the values of the settings that are secret.
"""

import logging
import logging.config
import re
import sys
import time
from collections.abc import Iterable
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from keybearer.domain.redisurl import parse_redis_url
from keybearer.settings import Settings

Form = Literal["json", "console"]

GONE = "[redacted]"

_LOOKS_SECRET = re.compile(
    r"""
      (?P<scheme>\b(?:bearer|basic)\s+)[^\s"',;]+          # Authorization
    | (?P<name>(?:session_token|token|password|key|code)=)[^\s"'&;]+
    | (?P<link>/(?:reset-password|calendar)/)               # whole or cut off by a mail program
        (?!(?:create|revoke)(?![^\s/?"']))[^\s/?"']+
    | (?P<user>://[^\s/@:"']*:)[^\s/@"']+(?=@)              # a password in a URL
    | \beyJ[\w-]{5,}\.[\w-]+(?:\.[\w-]*)*                   # a JWT
    | (?<![0-9A-Za-z])(?:[a-z0-9_]{0,15}_)?[0-9A-Za-z]{32,}   # keys, tokens, links
    """,
    re.VERBOSE | re.IGNORECASE,
)

log = logging.getLogger("keybearer.access")


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """The text without what looks like a credential, and without `secrets`."""
    for secret in secrets:
        text = text.replace(secret, GONE)
    return _LOOKS_SECRET.sub(_kept, text)


def _kept(match: re.Match[str]) -> str:
    known = match["scheme"] or match["name"] or match["link"] or match["user"]
    return (known or "") + GONE


def secrets_of(settings: Settings) -> tuple[str, ...]:
    """The values of the settings that nobody may read in a log."""
    found = [*settings.secret, *settings.service_tokens]
    for url in (settings.database_url, settings.redis_url, settings.smtp_url):
        password = urlsplit(url or "").password
        if password:
            found += [password, unquote(password)]
    if settings.redis_url is not None:
        found += parse_redis_url(settings.redis_url).secrets
    return tuple(sorted(set(found), key=len, reverse=True))


class Formatter(structlog.stdlib.ProcessorFormatter):
    """A record as one line of JSON or a line for a terminal, redacted as the last step."""

    def __init__(self, form: Form, secrets: tuple[str, ...] = ()) -> None:
        renderer: Any = structlog.processors.JSONRenderer(ensure_ascii=False)
        if form == "console":
            renderer = structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        shown: list[Any] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta, _one_line]
        if form == "json":
            shown.append(structlog.processors.format_exc_info)
        super().__init__(
            processors=[*shown, renderer],
            foreign_pre_chain=[
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                structlog.stdlib.ExtraAdder(),
                structlog.processors.TimeStamper(fmt="iso", utc=True),
            ],
        )
        self._secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        """One event."""
        return redact(super().format(record), self._secrets)


def _one_line(_logger: object, _method: str, event: Any) -> Any:
    """Control characters spelled out: what others wrote forges no line and drives no terminal."""
    for name, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            event[name] = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in value)
    return event


def configuration(form: Form, settings: Settings) -> dict[str, Any]:
    """What `logging.config.dictConfig` takes, for us and for the server below us."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "events": {"()": Formatter, "form": form, "secrets": secrets_of(settings)},
        },
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "formatter": "events",
                "stream": "ext://sys.stderr",
            },
        },
        "loggers": {
            "keybearer": {"level": "INFO"},
            "_granian": {"level": "WARNING"},
        },
        "root": {"level": "WARNING", "handlers": ["stderr"]},
    }


class AccessLog:
    """One event for each request: method, path, status, milliseconds; never the query."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()
        status = 500
        request_id: str | None = None

        async def sending(message: Message) -> None:
            nonlocal status, request_id
            if message["type"] == "http.response.start":
                status = message["status"]
                for name, value in message.get("headers", ()):
                    if name == b"x-request-id":
                        request_id = value.decode("latin-1")
            await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            client = scope.get("client")
            log.info(
                "request",
                extra={
                    "method": scope["method"],
                    "path": scope["path"][:200],
                    "status": status,
                    "ms": round((time.perf_counter() - begun) * 1000, 2),
                    "peer": client[0] if client else None,
                    "request_id": request_id,
                },
            )
