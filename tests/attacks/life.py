"""A whole life against a server: from sign-up to deletion, with every secret written down."""

import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from typing import Any

import httpx2
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope
from aiosmtpd.smtp import Session as SmtpSession

from tests.attacks.town import API

EMAIL = "cara.canary@example.com"
PASSWORDS = ("canary violet tractors hum", "canary seven otters fold", "canary amber kites drift")
_TOKEN = re.compile(r"\b[A-Za-z0-9]{43}\b")
_SECONDS = 60.0


class Post:
    """A mail server that keeps what it takes."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        self._controller = Controller(self, hostname="127.0.0.1", port=port)
        self.url = f"smtp://127.0.0.1:{port}"

    async def handle_DATA(self, _server: SMTP, _session: SmtpSession, envelope: Envelope) -> str:  # noqa: N802 -- the library's name
        assert isinstance(envelope.content, bytes)
        message = message_from_bytes(envelope.content, policy=policy.default)
        self.texts.append(str(message.get_content()))
        return "250 OK"

    def __enter__(self) -> "Post":
        self._controller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._controller.stop()

    def wait_for(self, n: int) -> str:
        """The text of the n-th mail."""
        wait_until(lambda: len(self.texts) >= n)
        return self.texts[n - 1]


def wait_until(true: Callable[[], object]) -> None:
    until = time.monotonic() + _SECONDS
    while not true():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)


@dataclass
class Life:
    """What one person does; `secrets` fills while it goes on."""

    client: httpx2.Client
    service: str
    post: Post
    secrets: dict[str, str] = field(default_factory=dict)

    def ask(self, path: str, headers: dict[str, str] | None = None, **json: object) -> Any:
        answer = self.client.post(API + path, json=json, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def live(self) -> None:
        self._sign_up()
        login = self._log_in()
        key = self._use_a_key(login)
        self._subscribe(login)
        self._use_a_cookie()
        self._reset()
        login = self._log_in(PASSWORDS[1])
        changed = {"currentPassword": PASSWORDS[1], "newPassword": PASSWORDS[2]}
        pair = self.ask("/change-password", login, **changed)
        self._keep(access=pair["token"], refresh=pair["refreshToken"])
        login = {"authorization": f"Bearer {pair['token']}"}
        self._err(key)
        self.ask("/api-key/delete", login, keyId=key["id"])
        self.ask("/logout", login)

    def _keep(self, **secrets: str) -> None:
        for name, secret in secrets.items():
            self.secrets[f"{name} {len(self.secrets)}"] = secret

    def _sign_up(self) -> None:
        self.ask("/sign-up/email", name="Cara", email=EMAIL, password=PASSWORDS[0])
        self._keep(password=PASSWORDS[0], verification=_found(self.post.wait_for(1)))
        token = list(self.secrets.values())[-1]
        answer = self.client.get(f"{API}/verify-email", params={"token": token})
        assert answer.status_code == 200, answer.text

    def _log_in(self, password: str = PASSWORDS[0]) -> dict[str, str]:
        self._keep(password=password)
        pair = self.ask("/login", email=EMAIL, password=password)
        self._keep(access=pair["token"], refresh=pair["refreshToken"])
        pair = self.ask("/refresh", refreshToken=pair["refreshToken"])
        self._keep(access=pair["token"], refresh=pair["refreshToken"])
        return {"authorization": f"Bearer {pair['token']}"}

    def _use_a_key(self, login: dict[str, str]) -> Any:
        key = self.ask("/api-key/create", login, name="ci", description="deploys")
        self._keep(key=key["key"])
        asking = {"authorization": f"Bearer {self.service}"}
        assert self.ask("/api-key/verify", asking, key=key["key"])["valid"]
        forwarded = self.client.get(f"{API}/forward", headers={"x-api-key": key["key"]})
        assert forwarded.status_code == 200
        rotated = self.ask("/api-key/rotate", login, keyId=key["id"], gracePeriod=3600)
        self._keep(key=rotated["key"])
        assert self.ask("/api-key/verify", asking, key=rotated["key"])["valid"]
        return rotated

    def _subscribe(self, login: dict[str, str]) -> None:
        for _ in range(2):  # the second replaces the first
            url = self.ask("/calendar/create", login)["url"]
            token = url.rpartition("/")[2].removesuffix(".ics")
            self._keep(calendar=token, half_a_calendar=token[:30])
            path = f"{API}/calendar/{token}"
            assert "BEGIN:VEVENT" in self.client.get(f"{path}.ics").text
            for mutilated in (path, path[:-23], f"{path}.ics/", f"{path}.ical?x=1"):
                answer = self.client.get(mutilated)
                assert answer.status_code == 404
                assert token[:20] not in answer.text

    def _use_a_cookie(self) -> None:
        self._keep(session=self.ask("/sign-in/email", email=EMAIL, password=PASSWORDS[0])["token"])
        (cookie,) = self.client.cookies.jar
        self._keep(cookie=str(cookie.value))
        assert self.client.get(f"{API}/get-session").json()["user"]["email"] == EMAIL
        self.client.cookies.clear()

    def _reset(self) -> None:
        mails = len(self.post.texts)
        self.ask("/request-password-reset", email=EMAIL)
        self._keep(unused_reset=_found(self.post.wait_for(mails + 1)))
        self.ask("/request-password-reset", email=EMAIL)
        token = _found(self.post.wait_for(mails + 2))
        self._keep(reset=token, password=PASSWORDS[1])
        self.ask("/reset-password", token=token, newPassword=PASSWORDS[1])
        self._keep(password=PASSWORDS[2])

    def _err(self, key: Any) -> None:
        """Sends secrets to where they do not belong."""
        secret = key["key"]
        for path in (
            f"/forward?api_key={secret}",
            f"/forward?token={secret}&x=1",
            f"/verify-email?token={secret[3:46]}",
            f"/reset-password/{secret[3:46]}",
            f"/nothing/{secret}",
            f"/api-key/list?access_token={secret}",
        ):
            self.client.get(API + path)
        self.client.get(f"/elsewhere/{secret}?key={secret}")
        self.client.get(f"{API}/forward", headers={"authorization": f"Basic {secret}"})
        self.client.get(f"{API}/audit", headers={"x-api-key": secret, "authorization": secret})
        self.client.post(f"{API}/login", json={"email": EMAIL, "password": secret})
        self.client.post(f"{API}/login", content=f'{{"email":"{secret}')
        self.client.post(f"{API}/refresh", json={"refreshToken": secret})
        self.client.post(f"{API}/api-key/create", json={secret: secret})


def _found(text: str) -> str:
    found = _TOKEN.search(text)
    assert found is not None, text
    return found[0]
