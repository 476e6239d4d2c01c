"""Mail arrives as it was written, at one address, and never in the clear over a network."""

import io
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from keybearer.adapters.mail import Mail, MailFailed, PrintSender, SmtpSender, compose
from keybearer.domain.errors import Misuse

MAIL = Mail(to="ada@example.com", subject="Confirm your address", text="Hello,\n\n.dot\nbye\n")


class Inbox:
    """Keeps what arrives; answers RCPT and DATA as it is told to."""

    def __init__(self) -> None:
        self.received: list[Envelope] = []
        self.sessions: list[Session] = []
        self.at_rcpt = "250 OK"
        self.at_data = "250 OK"

    async def handle_RCPT(  # noqa: N802  # the library's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        envelope.rcpt_tos.append(address)
        return self.at_rcpt

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        self.received.append(envelope)
        self.sessions.append(session)
        return self.at_data

    def message(self) -> EmailMessage:
        (envelope,) = self.received
        assert isinstance(envelope.content, bytes)
        message = message_from_bytes(envelope.content, policy=policy.default)
        assert isinstance(message, EmailMessage)
        return message

    def text(self) -> str:
        content = self.message().get_content()
        assert isinstance(content, str)
        return content.replace("\r\n", "\n")


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        assert isinstance(port, int)
        return port


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


Serve = Callable[..., int]


@pytest.fixture
def serve(inbox: Inbox) -> Iterator[Serve]:
    """Starts an SMTP server with these options of aiosmtpd, and gives its port."""
    running: list[Controller] = []

    def start(**options: Any) -> int:
        controller = Controller(inbox, hostname="127.0.0.1", port=free_port(), **options)
        controller.start()
        running.append(controller)
        return int(controller.port)

    yield start
    for controller in running:
        controller.stop()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for 127.0.0.1 with its key, in one PEM file."""
    key = generate_private_key(SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(private + built.public_bytes(Encoding.PEM))
    return file


@pytest.fixture
def server_tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture
def client_tls(certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate))


def login_of(user: bytes, password: bytes) -> Callable[..., AuthResult]:
    def authenticator(
        server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: object
    ) -> AuthResult:
        right = data == LoginPassword(user, password)
        return AuthResult(success=right, handled=False)

    return authenticator


# ------------------------------------------------------------------------------------ delivery


@pytest.mark.parametrize(
    "text",
    [
        "plain\n",
        MAIL.text,
        "Grüße, 日本語, مرحبا 👩‍💻\n",
        "a link: https://auth.example.com/verify-email?token=" + "x" * 1500 + "&a=b\n",
        "From here\n=3D =\n",
    ],
)
def test_the_text_arrives_as_it_was_written(serve: Serve, inbox: Inbox, text: str) -> None:
    sender = SmtpSender(f"smtp://127.0.0.1:{serve()}", "keys@auth.example.com")
    sender.send(Mail(to=MAIL.to, subject=MAIL.subject, text=text))
    assert inbox.text() == text
    assert inbox.message().get_content_type() == "text/plain"


@pytest.mark.parametrize(
    "subject", ["Hi", "Bestätigen", "確認 é " * 40 + "!", "مرحبا \u200f!", "", "a =? b", "x" * 300]
)
def test_the_headers_arrive_as_they_were_written(serve: Serve, inbox: Inbox, subject: str) -> None:
    sender = SmtpSender(f"smtp://127.0.0.1:{serve()}", "keys@auth.example.com")
    sender.send(Mail(to=MAIL.to, subject=subject, text="x"))
    message = inbox.message()
    assert message["Subject"] == subject
    assert message["To"] == "ada@example.com"
    assert message["From"] == "keys@auth.example.com"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Message-ID"].endswith("@auth.example.com>")
    assert abs(message["Date"].datetime - datetime.now(UTC)) < timedelta(minutes=1)
    assert inbox.received[0].mail_from == "keys@auth.example.com"
    assert inbox.received[0].rcpt_tos == ["ada@example.com"]
    assert inbox.sessions[0].host_name == "auth.example.com"


def test_two_mails_have_two_message_ids() -> None:
    ids = {compose(MAIL, "keys@example.com")["Message-ID"] for _ in range(3)}
    assert len(ids) == 3


@pytest.mark.parametrize(
    ("url", "sender", "expected"),
    [
        ("smtp://127.0.0.1", None, "keybearer@localhost"),
        ("smtp://mail.example.com", None, "keybearer@mail.example.com"),
        ("smtp://me%40example.com:x@mail.example.net", None, "me@example.com"),
        ("smtp://me:x@mail.example.net", None, "keybearer@mail.example.net"),
        ("smtp://me:x@mail.example.net", "k@example.org", "k@example.org"),
    ],
)
def test_the_sender_has_an_address(url: str, sender: str | None, expected: str) -> None:
    assert SmtpSender(url, sender)._sender == expected


def test_an_international_address_is_reached_where_the_server_can(
    serve: Serve, inbox: Inbox
) -> None:
    mail = Mail(to="jürgen@example.com", subject="Grüße", text="ü\n")
    SmtpSender(f"smtp://127.0.0.1:{serve()}").send(mail)
    assert inbox.received[0].rcpt_tos == [mail.to]
    assert (inbox.message()["To"], inbox.message()["Subject"]) == (mail.to, mail.subject)
    with pytest.raises(MailFailed, match="SMTPNotSupportedError"):
        SmtpSender(f"smtp://127.0.0.1:{serve(enable_SMTPUTF8=False)}").send(mail)


# ----------------------------------------------------------------------------------- injection


@pytest.mark.parametrize(
    "to",
    [
        "a@x.example\r\nBcc: e@evil.example",
        "a@x.example\nBcc: e@evil.example",
        "a@x.example,e@evil.example",
        "a@x.example, e@evil.example",
        "a@x.example;e@evil.example",
        "a@x.example e@evil.example",
        '"a\\"@x"@y.example',
        "<a@x.example>",
        "A <a@x.example>",
        "a@x.example (comment)",
        "group:a@x.example;",
        "a@x@y.example",
        "a@[127.0.0.1]",
        "a@x.example\0",
        "a@x.example\n",
        "=?utf-8?q?a=0D=0ABcc:e?=@evil.example",
        "a",
        "@x.example",
        "a@",
        "",
        "a@" + "x" * 300,
    ],
)
def test_a147_what_is_not_one_address_is_refused(serve: Serve, inbox: Inbox, to: str) -> None:
    mail = Mail(to=to, subject="x", text="x")
    with pytest.raises(ValueError, match=r"one address|as it was written"):
        SmtpSender(f"smtp://127.0.0.1:{serve()}").send(mail)
    with pytest.raises(ValueError, match=r"one address|as it was written"):
        PrintSender(io.StringIO()).send(mail)
    assert not inbox.received


@pytest.mark.parametrize(
    "subject",
    [
        "a\r\nBcc: e@evil.example",
        "a\nBcc: e@evil.example",
        "a\rBcc: e@evil.example",
        "a\x0bb",
        "a\x85b",
        "a\u2028b",
        "a\0b",
        "a\x1b[2J",
        "=?utf-8?q?a=0D=0ABcc:_e@evil.example?=",
        "=?utf-8?b?YQ0KQmNjOiBlQGV2aWwuZXhhbXBsZQ==?=",
    ],
)
def test_an_injected_header_is_refused(serve: Serve, inbox: Inbox, subject: str) -> None:
    with pytest.raises(ValueError, match=r"one line|as it was written"):
        SmtpSender(f"smtp://127.0.0.1:{serve()}").send(Mail(to=MAIL.to, subject=subject, text=""))
    assert not inbox.received


def test_text_cannot_end_the_mail_early(serve: Serve, inbox: Inbox) -> None:
    text = "a\n.\nMAIL FROM:<e@evil.example>\r\n.\r\nRCPT TO:<e@evil.example>\n"
    SmtpSender(f"smtp://127.0.0.1:{serve()}").send(Mail(to=MAIL.to, subject="x", text=text))
    assert inbox.text() == text.replace("\r\n", "\n")
    assert inbox.received[0].rcpt_tos == [MAIL.to]


# ------------------------------------------------------------------------------------ failures


def failure_of(sender: SmtpSender) -> MailFailed:
    with pytest.raises(MailFailed) as caught:
        sender.send(MAIL)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return caught.value


def test_a_server_that_is_gone_fails_fast() -> None:
    started = time.monotonic()
    failure = failure_of(SmtpSender(f"smtp://u:s3cret@127.0.0.1:{free_port()}"))
    assert time.monotonic() - started < 1
    assert "ConnectionRefusedError" in str(failure)
    assert "s3cret" not in str(failure)
    assert not failure.permanent


def test_a_server_that_says_nothing_fails_after_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        failure_of(SmtpSender(f"smtp://127.0.0.1:{silent.getsockname()[1]}", timeout=0.3))
        assert 0.2 < time.monotonic() - started < 3


@pytest.mark.parametrize(
    ("reply", "permanent"), [("550 no such user", True), ("451 greylisted", False)]
)
def test_a_refused_recipient_is_told(
    serve: Serve, inbox: Inbox, reply: str, permanent: bool
) -> None:
    inbox.at_rcpt = reply
    failure = failure_of(SmtpSender(f"smtp://127.0.0.1:{serve()}"))
    assert failure.permanent is permanent
    assert MAIL.to not in str(failure)
    assert "recipient" in str(failure)


@pytest.mark.parametrize(("reply", "permanent"), [("554 spam", True), ("452 full", False)])
def test_a_refused_mail_is_told(serve: Serve, inbox: Inbox, reply: str, permanent: bool) -> None:
    inbox.at_data = reply
    failure = failure_of(SmtpSender(f"smtp://127.0.0.1:{serve()}"))
    assert failure.permanent is permanent
    assert "mail refused" in str(failure)


def test_a_bad_goodbye_does_not_undo_a_delivery(
    serve: Serve, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang_up(server: SMTP, argument: str) -> None:
        await server.push("421 going down")

    monkeypatch.setattr(SMTP, "smtp_QUIT", hang_up)
    SmtpSender(f"smtp://127.0.0.1:{serve()}").send(MAIL)
    assert len(inbox.received) == 1


# ------------------------------------------------------------------------------- login and TLS


def test_user_and_password_are_percent_decoded(serve: Serve, inbox: Inbox) -> None:
    port = serve(authenticator=login_of(b"me@x.example", b"p:/@ %"), auth_require_tls=False)
    SmtpSender(f"smtp://me%40x.example:p%3A%2F%40%20%25@127.0.0.1:{port}").send(MAIL)
    assert inbox.sessions[0].authenticated
    assert inbox.message()["From"] == "me@x.example"


def test_a_wrong_password_fails_without_saying_it(serve: Serve, inbox: Inbox) -> None:
    port = serve(authenticator=login_of(b"me", b"right"), auth_require_tls=False)
    sender = SmtpSender(f"smtp://me:s3cret@127.0.0.1:{port}")
    failure = failure_of(sender)
    assert "SMTPAuthenticationError 535" in str(failure)
    assert "s3cret" not in str(failure)
    assert "s3cret" not in repr(sender)
    # The operator mends it; the mail itself was not refused.
    assert not failure.permanent
    assert not inbox.received


def test_a_login_that_the_server_lacks_fails(serve: Serve) -> None:
    failure = failure_of(SmtpSender(f"smtp://me:s3cret@127.0.0.1:{serve()}"))
    assert "SMTPNotSupportedError" in str(failure)


def test_smtps_verifies_the_certificate(
    serve: Serve, inbox: Inbox, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    url = f"smtps://127.0.0.1:{serve(ssl_context=server_tls)}"
    assert "SSLCertVerificationError" in str(failure_of(SmtpSender(url)))
    assert not inbox.received
    SmtpSender(url, context=client_tls).send(MAIL)
    assert inbox.message()["To"] == MAIL.to


def test_starttls_is_used_where_it_is_offered(
    serve: Serve, inbox: Inbox, server_tls: ssl.SSLContext
) -> None:
    port = serve(tls_context=server_tls, require_starttls=True)
    SmtpSender(f"smtp://127.0.0.1:{port}").send(MAIL)
    assert inbox.sessions[0].ssl is not None


def test_starttls_off_loopback_verifies_the_certificate(
    serve: Serve, inbox: Inbox, server_tls: ssl.SSLContext
) -> None:
    # 0.0.0.0 leads to this machine, but is no loopback address.
    port = serve(tls_context=server_tls)
    assert "SSLCertVerificationError" in str(failure_of(SmtpSender(f"smtp://0.0.0.0:{port}")))
    assert not inbox.received


def test_off_loopback_nothing_is_said_in_the_clear(serve: Serve, inbox: Inbox) -> None:
    port = serve(authenticator=login_of(b"me", b"right"), auth_require_tls=False)
    failure = failure_of(SmtpSender(f"smtp://me:right@0.0.0.0:{port}"))
    assert "STARTTLS is not offered" in str(failure)
    assert not inbox.received


@pytest.mark.parametrize(
    "url",
    [
        "",
        "mail.example.com",
        "http://u:s3cret@mail.example.com",
        "smtp://",
        "smtp://u:s3cret@",
        "smtp://u:s3cret@mail.example.com:70000",
        "smtp://u:s3cret@mail.example.com:x",
        "smtp://u:s3cret@[::1",
        "smtp://u:s3cret@mail..example",
        "smtp://u:s3cret@" + "m" * 70,
        "smtp://u:s3cret@mail.example.com/path",
        "smtp://u:s3cret@mail.example.com?tls=no",
        "smtp://u:s3crét@mail.example.com",
        "smtp://u:s3cret%C3%A9@mail.example.com",
    ],
)
def test_a_bad_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(Misuse, match="SMTP_URL") as caught:
        SmtpSender(url)
    assert "s3cr" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize("sender", ["x", "a@b,c@d", "Keys <a@b.example>", "ä@b.example", "a@b\n"])
def test_a_bad_sender_is_refused(sender: str) -> None:
    with pytest.raises(Misuse, match="MAIL_FROM"):
        SmtpSender("smtp://127.0.0.1", sender)


@pytest.mark.parametrize(
    ("url", "port"),
    [("smtp://localhost", 587), ("smtps://localhost", 465), ("smtp://[::1]:25", 25)],
)
def test_the_ports_are_those_of_rfc_8314(url: str, port: int) -> None:
    assert SmtpSender(url)._port == port


# ------------------------------------------------------------------------------------ printing


def test_a_printed_mail_is_readable() -> None:
    stream = io.StringIO()
    PrintSender(stream).send(Mail(to=MAIL.to, subject="Grüße", text="one\ntwo\n"))
    lines = stream.getvalue().splitlines()
    assert lines[1:6] == ["To:      ada@example.com", "Subject: Grüße", "", "one", "two"]


def test_printing_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    PrintSender().send(MAIL)
    captured = capsys.readouterr()
    assert "Confirm your address" in captured.err
    assert not captured.out


def test_a_printed_mail_does_not_drive_the_terminal() -> None:
    stream = io.StringIO()
    PrintSender(stream).send(Mail(to=MAIL.to, subject="x", text="\x1b[2J\x9b1m\ttab\r\n"))
    assert "\\x1b[2J\\x9b1m\ttab\\r\n" in stream.getvalue()
