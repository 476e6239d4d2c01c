"""A wire that is cut is cut, and what it held up comes late or never."""

import contextlib
import socket
import socketserver
import threading
from collections.abc import Iterator

import pytest

from tests.soak.wires import Cut, Wire, Wires

LONG_ENOUGH = 0.1
"""Seconds in which what arrives would have arrived; on a slow machine the test sees less."""


class Echo(socketserver.BaseRequestHandler):
    heard: list[bytes]

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            while data := self.request.recv(100):
                self.heard.append(data)
                arrived.set()
                self.request.sendall(data)


arrived = threading.Event()


@pytest.fixture
def heard() -> list[bytes]:
    return []


@pytest.fixture
def wires() -> Iterator[Wires]:
    laid = Wires()
    yield laid
    laid.close()


@pytest.fixture
def wire(wires: Wires, heard: list[bytes]) -> Iterator[Wire]:
    handler = type("Handler", (Echo,), {"heard": heard})
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield wires.lay(server.server_address[1])
        server.shutdown()


@pytest.fixture
def line(wire: Wire) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", wire.port), timeout=20) as connected:
        connected.sendall(b"first")
        assert connected.recv(100) == b"first"
        arrived.clear()
        yield connected


def nothing_comes(line: socket.socket) -> bool:
    line.settimeout(LONG_ENOUGH)
    try:
        line.recv(100)
    except TimeoutError:
        return True
    finally:
        line.settimeout(20)
    return False


def is_cut_off(line: socket.socket) -> bool:
    try:
        return line.recv(100) == b""
    except ConnectionError:
        return True


def test_who_is_refused_is_cut_off_and_cannot_come_back_before_it_is_mended(
    wires: Wires, wire: Wire, line: socket.socket
) -> None:
    wires.cut(wire, "refused")
    assert is_cut_off(line)
    with socket.create_connection(("127.0.0.1", wire.port), timeout=20) as again:
        assert is_cut_off(again)
    wires.mend(wire, lost=False)
    with socket.create_connection(("127.0.0.1", wire.port), timeout=20) as again:
        again.sendall(b"again")
        assert again.recv(100) == b"again"


@pytest.mark.parametrize("how", ["silent", "deaf"])
def test_what_is_held_up_comes_late(
    wires: Wires, wire: Wire, line: socket.socket, heard: list[bytes], how: Cut
) -> None:
    wires.cut(wire, how)
    line.sendall(b"held up")
    if how == "deaf":
        assert arrived.wait(20)
    assert nothing_comes(line)
    assert (b"held up" in heard) is (how == "deaf")
    wires.mend(wire, lost=False)
    assert line.recv(100) == b"held up"


@pytest.mark.parametrize("how", ["silent", "deaf"])
def test_or_is_lost_with_its_connection(
    wires: Wires, wire: Wire, line: socket.socket, how: Cut
) -> None:
    wires.cut(wire, how)
    line.sendall(b"held up")
    assert nothing_comes(line)
    wires.mend(wire, lost=True)
    assert is_cut_off(line)


def test_who_connects_to_a_silent_wire_is_kept_waiting(wires: Wires, wire: Wire) -> None:
    wires.cut(wire, "silent")
    with socket.create_connection(("127.0.0.1", wire.port), timeout=20) as early:
        early.sendall(b"early")
        assert nothing_comes(early)
        wires.mend(wire, lost=False)
        assert early.recv(100) == b"early"


def test_a_server_that_is_down_is_down_through_a_wire(wires: Wires) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    wire = wires.lay(port)
    with socket.create_connection(("127.0.0.1", wire.port), timeout=20) as line:
        assert is_cut_off(line)
