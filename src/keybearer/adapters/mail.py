"""Send one mail to one person over SMTP, or show it.

    smtp://   STARTTLS (RFC 3207) with a verified certificate; on loopback plain is allowed
    smtps://  TLS from the first byte (RFC 8314), certificate verified

Both senders block; the outbox calls them from a thread, retries and gives up.
"""

import ipaddress
import re
import smtplib
import ssl
import sys
from contextlib import suppress
from datetime import UTC, datetime
from email import policy
from email.header import Header
from email.message import EmailMessage
from email.utils import make_msgid
from typing import TextIO
from urllib.parse import unquote, urlsplit

import msgspec

from keybearer.domain.errors import KeybearerError, Misuse

# One address and nothing that a mail system could read as a second one, a comment or a name.
# That is less than RFC 5321 allows: quoted local parts have brought more attacks than mail.
_ADDRESS = re.compile(r'[^\s\x00-\x1f\x7f"(),:;<>@\[\\\]]+@[^\s\x00-\x1f\x7f"(),:;<>@\[\\\]]+')

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class Mail(msgspec.Struct, frozen=True, kw_only=True):
    """Plain text for one address; lines end in a line feed."""

    to: str
    subject: str
    text: str

    def __repr__(self) -> str:
        return f"Mail(subject={self.subject!r}, text='…')"


class MailFailed(KeybearerError):
    """The mail was not handed over; the text holds neither secrets nor what the server said.

    `permanent`: the server refused this mail for good (a 5xx reply); a retry is no use.
    """

    def __init__(self, reason: str, *, permanent: bool = False) -> None:
        self.permanent = permanent
        super().__init__(reason)


class SmtpSender:
    """Hands mail to the server of an `smtp://` or `smtps://` URL, one connection for each.

    Args:
        url: `smtps://user:password@host:465`; user and password percent-encoded. The port is 587
            or, for smtps, 465 if none is named.
        sender: the From address; None takes the user, or keybearer@host.
        timeout: seconds for the connection and for each reply.
        context: what to trust instead of the system's authorities (an own CA).

    Raises:
        Misuse: the URL or the sender is not one.
    """

    def __init__(
        self,
        url: str,
        sender: str | None = None,
        *,
        timeout: float = 10,
        context: ssl.SSLContext | None = None,
    ) -> None:
        try:
            parts = urlsplit(url)
            self._host, port = parts.hostname or "", parts.port
            self._host.encode("idna")  # as the look-up will: better refused now than at a mail
        except ValueError:
            # From None: the cause quotes the URL, and the URL holds the password.
            raise Misuse("SMTP_URL has a bad host or port.") from None
        self._user, self._password = unquote(parts.username or ""), unquote(parts.password or "")
        # smtplib logs in with ASCII alone, and fails with the password in its error.
        plain = (self._host + self._user + self._password).isascii()
        extra = parts.path.strip("/") or parts.query or parts.fragment
        if parts.scheme not in ("smtp", "smtps") or not self._host or not plain or extra:
            raise Misuse("SMTP_URL takes smtp://user:password@host:port or smtps://…, in ASCII.")
        self._tls = parts.scheme == "smtps"
        self._port = port or (465 if self._tls else 587)
        domain = "localhost" if _is_loopback(self._host) else self._host
        self._sender = sender or (self._user if "@" in self._user else f"keybearer@{domain}")
        if not self._sender.isascii() or not _ADDRESS.fullmatch(self._sender):
            raise Misuse("MAIL_FROM takes one ASCII address, such as keys@example.com.")
        self._timeout = timeout
        self._context = context

    def __repr__(self) -> str:
        return f"SmtpSender({'smtps' if self._tls else 'smtp'}://{self._host}:{self._port})"

    def send(self, mail: Mail) -> None:
        """Hand `mail` over; returns when the server has taken responsibility for it.

        Raises:
            MailFailed: the server is gone, refuses, or offers no TLS or login where we need it.
            ValueError: `to` is not exactly one address, or a header has a line break.
        """
        message = compose(mail, self._sender)
        options = () if mail.to.isascii() else ("SMTPUTF8", "BODY=8BITMIME")  # RFC 6531
        try:
            server = self._connect()
            try:
                self._greet(server)
                # Not send_message: it writes ">From" where a line begins with "From".
                server.sendmail(self._sender, [mail.to], message.as_bytes(), options)
            finally:
                # The mail is handed over, or has failed: how the server says goodbye is no news.
                with suppress(smtplib.SMTPException, OSError):
                    server.quit()
                server.close()
        # From None: what the server said may quote the login or the mail.
        except smtplib.SMTPRecipientsRefused as refused:
            code, _ = refused.recipients[mail.to]
            raise MailFailed(f"recipient refused: {code}", permanent=code >= 500) from None
        except smtplib.SMTPDataError as refused:
            code = refused.smtp_code
            raise MailFailed(f"mail refused: {code}", permanent=code >= 500) from None
        except smtplib.SMTPResponseException as refused:
            name = type(refused).__name__
            raise MailFailed(f"{self!r}: {name} {refused.smtp_code}") from None
        except (smtplib.SMTPException, OSError) as broken:
            raise MailFailed(f"{self!r}: {type(broken).__name__}") from None

    def check(self) -> None:
        """Connect, greet and log in as for a mail, and send none.

        Raises:
            MailFailed: the server is gone, refuses, or offers no TLS or login where we need it.
        """
        try:
            server = self._connect()
            try:
                self._greet(server)
            finally:
                with suppress(smtplib.SMTPException, OSError):
                    server.quit()
                server.close()
        # From None: what the server said may quote the login.
        except smtplib.SMTPResponseException as refused:
            name = type(refused).__name__
            raise MailFailed(f"{self!r}: {name} {refused.smtp_code}") from None
        except (smtplib.SMTPException, OSError) as broken:
            raise MailFailed(f"{self!r}: {type(broken).__name__}") from None

    def _connect(self) -> smtplib.SMTP:
        # The default name would be this machine's: a look-up that can hang, and a leak.
        name = self._sender.rpartition("@")[2]
        if not self._tls:
            return smtplib.SMTP(self._host, self._port, name, timeout=self._timeout)
        context = self._context or ssl.create_default_context()
        return smtplib.SMTP_SSL(
            self._host, self._port, name, timeout=self._timeout, context=context
        )

    def _greet(self, server: smtplib.SMTP) -> None:
        server.ehlo_or_helo_if_needed()
        if not self._tls and server.has_extn("starttls"):
            server.starttls(context=self._context or self._starttls_context())
        elif not self._tls and not _is_loopback(self._host):
            # Never in the clear: who sits between may have cut the offer out (RFC 3207 section 6).
            raise MailFailed(f"{self!r}: STARTTLS is not offered")
        if self._user:
            server.login(self._user, self._password)

    def _starttls_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        if _is_loopback(self._host):
            # A local relay's certificate is its own work, and plain would be allowed here as well.
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


class PrintSender:
    """Shows mail on a stream instead of sending it, for development."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream

    def send(self, mail: Mail) -> None:
        """Print `mail` to the stream, or to what is stderr at that moment.

        Raises:
            ValueError: as `SmtpSender.send` does, so that development finds it.
        """
        compose(mail, "keybearer@localhost")
        rule = "-" * 72
        lines = [rule, f"To:      {mail.to}", f"Subject: {mail.subject}", "", mail.text, rule]
        print(_visible("\n".join(lines)), file=self._stream or sys.stderr, flush=True)


def compose(mail: Mail, sender: str) -> EmailMessage:
    """The message of RFC 5322 for `mail`.

    Raises:
        ValueError: `to` is not exactly one address, or a header has a line break.
    """
    if len(mail.to) > 254 or not _ADDRESS.fullmatch(mail.to):
        raise ValueError("A mail goes to exactly one address.")
    if _CONTROL.search(mail.subject):
        raise ValueError("A subject is one line without control characters.")
    message = EmailMessage(policy.SMTP if mail.to.isascii() else policy.SMTPUTF8)
    message["From"] = sender
    message["To"] = mail.to
    # Folded by the old class: the new one drops or misplaces the spaces between encoded words, each
    # version of Python in its own way (cpython gh-92081, gh-144156).
    message.set_raw("Subject", Header(mail.subject, header_name="Subject").encode())
    # The library decodes encoded words in what it is given, line breaks among them, and older
    # versions write those out as they are (CVE-2024-6923): what it reads must be what we gave.
    if (message["To"], message["Subject"].strip()) != (mail.to, mail.subject.strip()):
        raise ValueError("A header would not arrive as it was written.")
    message["Date"] = datetime.now(UTC)
    message["Message-ID"] = make_msgid(domain=sender.rpartition("@")[2])
    # RFC 3834 section 5: nobody's holiday notice shall answer.
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(mail.text)
    return message


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _visible(text: str) -> str:
    # A mail must not drive the terminal of who reads the log.
    return _CONTROL.sub(
        lambda match: match[0] if match[0] in "\n\t" else ascii(match[0])[1:-1], text
    )
