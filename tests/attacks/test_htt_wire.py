"""HTTP on the wire, attacked: what a server reads as a request (rows A277 to A286)."""

from collections.abc import Iterator

import httpx2
import pytest

from tests.attacks.wire import CHUNKED, GET, HOST, JSON, POST, closing, exchange, health, status
from tests.cli.command import Server, Shell

HIDDEN = b"GET /api/auth/jwks HTTP/1.1\r\n" + HOST + b"\r\n"
"""What is smuggled: its answer has `"keys"`, and no other answer has."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for all these tests: they leave nothing behind."""
    with Shell(tmp_path_factory.mktemp("wire")).serving() as server:
        yield server
        assert server.process.poll() is None


# --- A277 -------------------------------------------------------------------------------------

EMPTY_CHUNKED = b"2\r\n{}\r\n0\r\n\r\n"

AMBIGUOUS: dict[str, bytes] = {
    "cl.te": POST + b"Content-Length: 12\r\n" + CHUNKED + b"\r\n" + EMPTY_CHUNKED,
    "te.cl": POST + CHUNKED + b"Content-Length: 5\r\n\r\n" + EMPTY_CHUNKED,
    "cl.te, hidden within": (
        POST + b"Content-Length: %d\r\n" % (5 + len(HIDDEN)) + CHUNKED + b"\r\n0\r\n\r\n"
    ),
    "te.te identity first": (
        POST + b"Transfer-Encoding: identity\r\n" + CHUNKED + b"Content-Length: 12\r\n\r\n"
        + EMPTY_CHUNKED
    ),
}  # fmt: skip
"""Two lengths of which RFC 9112 section 6.3 prefers one: answered at the most once."""

BROKEN: dict[str, bytes] = {
    "te.te identity last": (
        POST + CHUNKED + b"Transfer-Encoding: identity\r\n\r\n" + EMPTY_CHUNKED
    ),
    "te of one line, identity last": (
        POST + b"Transfer-Encoding: chunked, identity\r\n\r\n" + EMPTY_CHUNKED
    ),
    "unknown coding": POST + b"Transfer-Encoding: xchunked\r\nContent-Length: 2\r\n\r\n{}",
    "vertical tab before the coding": (
        POST + b"Transfer-Encoding: \x0bchunked\r\nContent-Length: 2\r\n\r\n{}"
    ),
    "space before the colon": (
        POST + b"Transfer-Encoding : chunked\r\nContent-Length: 2\r\n\r\n{}"
    ),
    "chunked in HTTP/1.0": (
        b"POST /api/auth/sign-out HTTP/1.0\r\n" + HOST + JSON + CHUNKED + b"\r\n" + EMPTY_CHUNKED
    ),
    "two lengths": POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "length +2": POST + b"Content-Length: +2\r\n\r\n{}",
    "length -2": POST + b"Content-Length: -2\r\n\r\n{}",
    "length 2,2": POST + b"Content-Length: 2,2\r\n\r\n{}",
    "length 2 2": POST + b"Content-Length: 2 2\r\n\r\n{}",
    "length 0x2": POST + b"Content-Length: 0x2\r\n\r\n{}",
    "length empty": POST + b"Content-Length:\r\n\r\n{}",
    "length over 64 bits": POST + b"Content-Length: 18446744073709551618\r\n\r\n{}",
    "chunk -2": POST + CHUNKED + b"\r\n-2\r\n{}\r\n0\r\n\r\n",
    "chunk 0x2": POST + CHUNKED + b"\r\n0x2\r\n{}\r\n0\r\n\r\n",
    "chunk over 64 bits": POST + CHUNKED + b"\r\n10000000000000002\r\n{}\r\n0\r\n\r\n",
    "chunk with bare line feeds": POST + CHUNKED + b"\r\n2\n{}\n0\n\n",
    "chunk extension with a bare line feed": POST + CHUNKED + b"\r\n2;a\n{}\r\n0\r\n\r\n",
    "chunk extension without end": POST + CHUNKED + b"\r\n2;" + b"a" * 100_000 + b"\r\n{}\r\n",
    "bare line feed before a header": POST + b"X: a\nTransfer-Encoding: chunked\r\n\r\n",
    "bare carriage return": GET + HOST + b"X: a\rTransfer-Encoding: chunked\r\n\r\n",
    "folded line": POST + b"X: a\r\n Content-Length: 2\r\n\r\n{}",
    "folded coding": POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n" + EMPTY_CHUNKED,
    "folded first line": GET + b" Host: localhost\r\n\r\n",
    "NUL in a value": GET + HOST + b"X: a\0b\r\n\r\n",
    "NUL in a name": GET + HOST + b"X\0: a\r\n\r\n",
    "HTTP/0.9": b"GET /api/auth/ok\r\n\r\n",
}
"""No message at all: 400."""


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_a277_after_two_lengths_the_connection_ends_and_nothing_hidden_is_answered(
    server: Server, name: str
) -> None:
    answer = exchange(server, AMBIGUOUS[name] + HIDDEN)
    assert answer.count(b"HTTP/1.") == 1
    assert status(answer) in (200, 400)  # of the request itself, by its chunks
    assert b'"keys"' not in answer


@pytest.mark.parametrize("name", BROKEN)
def test_a277_what_is_no_message_is_400_and_ends_the_connection(server: Server, name: str) -> None:
    answer = exchange(server, BROKEN[name] + HIDDEN)
    assert answer.count(b"HTTP/1.") == 1
    assert status(answer) == 400
    assert b'"keys"' not in answer


@pytest.mark.parametrize(
    "body",
    [
        b"Content-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN,
        CHUNKED + b"\r\n%x\r\n" % len(HIDDEN) + HIDDEN + b"\r\n0\r\n\r\n",
        CHUNKED + b"\r\n%x;a=b\r\n" % len(HIDDEN) + HIDDEN + b"\r\n0\r\nHost: evil.test\r\n\r\n",
    ],
    ids=["length", "chunked", "extension and trailer"],
)
@pytest.mark.parametrize("method", [b"GET", b"POST", b"DELETE", b"OPTIONS"])
def test_a277_a_request_within_a_body_is_a_body(server: Server, method: bytes, body: bytes) -> None:
    head = method + b" /api/auth/get-session HTTP/1.1\r\n" + HOST
    answer = exchange(server, head + body + closing(GET + HOST + b"\r\n"))
    assert answer.count(b"HTTP/1.1 ") == 2
    assert status(answer) in (400, 401, 405, 415)
    assert answer.endswith(b'{"ok":true}')
    assert b'"keys"' not in answer


# --- A281, A283, A286 -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        b"".join(b"x%d: y\r\n" % n for n in range(10_000)),
        b"Cookie: " + b"a" * 1_000_000 + b"\r\n",
        b"Cookie: a=b\r\n" * 5_000,
        b"Cookie: " + b"keybearer=b; " * 10_000 + b"\r\n",
    ],
    ids=["10 000 headers", "1 MB", "5 000 cookies", "10 000 in one"],
)
def test_a281_too_much_of_headers_is_431(server: Server, headers: bytes) -> None:
    answer = exchange(server, GET + HOST + headers + b"\r\n" + HIDDEN)
    # Nothing at all where the server had closed while we were still sending.
    assert answer == b"" or status(answer) == 431
    assert answer.count(b"HTTP/1.1 ") <= 1
    assert health(server) == 200


PLAIN = {"accept-encoding": "identity"}  # the length is that of what is read


@pytest.mark.parametrize(("size", "expected"), [(60_000, 200), (70_000, 413)])
@pytest.mark.parametrize("path", ["openapi.json", "docs", "static/reference.js"])
def test_a_long_answer_is_whole_whatever_body_came_with_the_question(
    server: Server, path: str, size: int, expected: int
) -> None:
    for _ in range(4):
        with httpx2.Client(base_url=server.base, timeout=60) as client:
            answer = client.request("GET", f"/api/auth/{path}", content=b"x" * size, headers=PLAIN)
        assert answer.status_code == expected
        assert len(answer.content) == int(answer.headers["content-length"])


def test_a281_5000_cookies_that_fit_are_nobodys(server: Server) -> None:
    cookies = b"Cookie: " + b"a=b; " * 5_000 + b"\r\n"
    request = b"GET /api/auth/get-session HTTP/1.1\r\n" + HOST + cookies + b"\r\n"
    assert exchange(server, closing(request)).endswith(b"\r\n\r\nnull")


@pytest.mark.parametrize(
    "hosts",
    [
        [],
        [b""],
        [b"evilevil.test"],
        [b"localhost", b"evilevil.test"],
        [b"evilevil.test", b"localhost"],
        [b"localhost", b"localhost"],
        [b"localhost, evilevil.test"],
        [b"localhost@evilevil.test"],
        [b"evilevil.test@localhost"],
        [b"localhost.evilevil.test"],
        [b"evilevil.test#localhost"],
        [b"evilevil.test/localhost"],
        [b"localhost/api/auth/health/live?"],
        [b"localhost:80:80"],
        [b"localhost:evilevil"],
        [b"localhost evilevil.test"],
        [b"l\xc3\xb6calhost"],
        [b"xn--lcalhost-90a"],
        [b"\xef\xbd\x8cocalhost"],
        [b"[::1"],
        [b"[::1]evilevil.test"],
        [b"0x7f000001"],
        [b"127.1"],
    ],
)
@pytest.mark.parametrize("target", [b"/api/auth/jwks", b"http://evilevil.test/api/auth/jwks"])
def test_a283_other_names_are_400_and_never_reflected(
    server: Server, target: bytes, hosts: list[bytes]
) -> None:
    lines = b"".join(b"Host: %s\r\n" % host for host in hosts)
    answer = exchange(server, closing(b"GET %s HTTP/1.1\r\n" % target + lines + b"\r\n"))
    assert status(answer) == 400
    assert b"evilevil" not in answer.lower()
    assert b'"keys"' not in answer


@pytest.mark.parametrize("host", [b"localhost", b"LOCALHOST:1", b"127.0.0.1:8000", b"[::1]:80"])
def test_a283_our_names_pass_and_an_absolute_target_is_never_reflected(
    server: Server, host: bytes
) -> None:
    for target in (b"/api/auth/jwks", b"http://evilevil.test/api/auth/jwks"):
        request = b"GET %s HTTP/1.1\r\nHost: %s\r\n\r\n" % (target, host)
        answer = exchange(server, closing(request))
        assert status(answer) == 200
        assert b"evilevil" not in answer.lower()


@pytest.mark.parametrize(
    "target",
    [
        b"/api/auth/%0d%0aSet-Cookie:%20evilevil=1",
        b"/api/auth/x%0aSet-Cookie:evilevil=1%0a%0a<script>",
        b"/api/auth/reset-password/x%0d%0aSet-Cookie:evilevil=1?callbackURL=/a",
        b"/api/auth/verify-email?token=x&callbackURL=/%0d%0aSet-Cookie:%20evilevil=1",
        b"/api/auth/verify-email?token=x&callbackURL=/a%E5%98%8A%E5%98%8DSet-Cookie:evilevil=1",
        b"/api/auth/forward?permissions=%0d%0aSet-Cookie:evilevil=1",
        b"/api/auth/static/%0d%0aSet-Cookie:evilevil=1",
        b"/api/auth/\xe5\x98\x8a\xe5\x98\x8dSet-Cookie:evilevil=1",
    ],
)
def test_a286_a_line_break_in_a_target_never_begins_a_header(server: Server, target: bytes) -> None:
    answer = exchange(server, closing(b"GET %s HTTP/1.1\r\n" % target + HOST + b"\r\n"))
    assert answer.count(b"HTTP/1.1 ") == 1
    assert 300 <= status(answer) < 500
    head = answer.partition(b"\r\n\r\n")[0].lower()
    assert b"evilevil" not in head
    assert b"set-cookie" not in head
