"""Requests as bytes, to a real server."""

import contextlib
import socket
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import httpx2

from tests.cli.command import Server

PATIENCE = 30
"""Seconds after which a test gives up on something that takes a moment."""

HOST = b"Host: localhost\r\n"
JSON = b"Content-Type: application/json\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
POST = b"POST /api/auth/sign-out HTTP/1.1\r\n" + HOST + JSON
GET = b"GET /api/auth/ok HTTP/1.1\r\n"


def connect(server: Server) -> socket.socket:
    parts = urlsplit(server.base)
    return socket.create_connection((parts.hostname, parts.port), timeout=PATIENCE)


def told(line: socket.socket) -> bytes:
    """All that comes until the server closes."""
    heard = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := line.recv(65_536):
            heard += chunk
    return heard


def exchange(server: Server, sent: bytes) -> bytes:
    """What the server says until it closes, which it must do by itself."""
    with connect(server) as line:
        # A server that has heard enough closes, and may do so before all is sent.
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            line.sendall(sent)
        return told(line)


def closing(sent: bytes) -> bytes:
    """The same request, which asks the server to close after it."""
    return sent.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)


def status(answer: bytes) -> int:
    """The status of the first answer."""
    return int(answer.split(b" ", 2)[1])


def health(server: Server) -> int:
    return httpx2.get(f"{server.base}/api/auth/ok", timeout=PATIENCE).status_code


def wait_for(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.02)
