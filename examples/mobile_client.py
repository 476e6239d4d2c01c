"""How an app on a phone logs in, stays logged in, and logs out.

    python examples/mobile_client.py --base http://127.0.0.1:8000 --email ada@example.com <password

The access token lives in memory, the refresh token in a store: on a phone Keychain or Keystore,
here memory as well. When calls in parallel find the access token expired, one refresh serves
them all, for each refresh token works once. Tokens are never printed or logged.
"""

import argparse
import asyncio
import getpass
import json
import sys
from typing import Any, Protocol

import httpx2

ATTEMPTS = 3
"""A refresh whose answer got lost is tried again with the same token, which is good for 10 s."""


class LoggedOut(Exception):
    """The login is over: ask for the password again."""


class Store(Protocol):
    """Where the refresh token is kept."""

    def load(self) -> str | None:
        """The refresh token, or None."""
        ...

    def save(self, token: str | None) -> None:
        """Keeps a refresh token; None forgets it."""
        ...


class Memory:
    """A store that forgets when the app ends."""

    def __init__(self) -> None:
        self._token: str | None = None

    def load(self) -> str | None:
        """The refresh token, or None."""
        return self._token

    def save(self, token: str | None) -> None:
        """Keeps a refresh token; None forgets it."""
        self._token = token


class MobileClient:
    """Calls an API as the user who logged in.

    Args:
        http: with the API's base URL.
        store: where the refresh token is kept; whoever finds one there is still logged in.
    """

    def __init__(self, http: httpx2.AsyncClient, store: Store | None = None) -> None:
        self._http = http
        self._store = store or Memory()
        self._access: str | None = None
        self._refreshing: asyncio.Task[None] | None = None

    async def log_in(self, email: str, password: str) -> dict[str, Any]:
        """Logs in and gives the user.

        Raises:
            LoggedOut: the server said no; its sentence is the text.
        """
        asked = {"email": email, "password": password, "clientId": "mobile-example"}
        answer = await self._http.post("/api/auth/login", json=asked)
        if answer.status_code in (401, 403):
            raise LoggedOut(answer.json()["message"])
        user: dict[str, Any] = self._keep(answer)["user"]
        return user

    async def request(self, method: str, path: str, **options: Any) -> httpx2.Response:
        """Calls the API; refreshes and tries again, once, when the access token has expired.

        Raises:
            LoggedOut: the login is over.
        """
        if self._access is None:
            await self._renew(None)
        used = self._access
        answer = await self._send(method, path, options)
        if answer.status_code == 401 and code_of(answer) == "TOKEN_EXPIRED":
            await self._renew(used)
            answer = await self._send(method, path, options)
        return answer

    async def log_out(self) -> None:
        """Ends the login on the server, and forgets the tokens whatever the server says."""
        token = self._store.load()
        self._forget()
        if token is not None:
            answer = await self._http.post("/api/auth/logout", json={"refreshToken": token})
            answer.raise_for_status()

    async def _send(self, method: str, path: str, options: dict[str, Any]) -> httpx2.Response:
        headers = {**options.get("headers", {}), "authorization": f"Bearer {self._access}"}
        return await self._http.request(method, path, **{**options, "headers": headers})

    async def _renew(self, used: str | None) -> None:
        """Gets a new access token unless somebody did since `used` was sent."""
        if self._access != used:
            return
        if self._refreshing is None:
            self._refreshing = asyncio.create_task(self._refresh())
            self._refreshing.add_done_callback(self._refreshed)
        # Shielded: a screen that closes must not lose the answer for everybody else.
        await asyncio.shield(self._refreshing)

    async def _refresh(self) -> None:
        token = self._store.load()
        if token is None:
            raise LoggedOut("Log in first.")
        answer = await self._ask_for_refresh(token)
        if answer.status_code == 401:
            self._forget()
            raise LoggedOut(answer.json()["message"])
        self._keep(answer)

    async def _ask_for_refresh(self, token: str) -> httpx2.Response:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await self._http.post("/api/auth/refresh", json={"refreshToken": token})
            except httpx2.TransportError:
                if attempt == ATTEMPTS:
                    raise
                await asyncio.sleep(attempt)
        raise AssertionError("unreachable")

    def _refreshed(self, task: asyncio.Task[None]) -> None:
        self._refreshing = None
        if not task.cancelled():
            task.exception()  # whoever waits has it

    def _keep(self, answer: httpx2.Response) -> dict[str, Any]:
        given: dict[str, Any] = answer.raise_for_status().json()
        self._store.save(given["refreshToken"])
        self._access = given["token"]
        return given

    def _forget(self) -> None:
        self._store.save(None)
        self._access = None


def code_of(answer: httpx2.Response) -> str | None:
    """The stable code of a refusal, or None where there is none."""
    if answer.headers.get("content-type") != "application/problem+json":
        return None
    code: str | None = answer.json().get("code")
    return code


async def tour(http: httpx2.AsyncClient, email: str, password: str) -> None:
    """Logs in, calls three endpoints at once, logs out."""
    client = MobileClient(http)
    user = await client.log_in(email, password)
    print(f"Logged in as {user['name']}.")
    paths = ["/api/user/profile", "/api/protected-endpoint", "/api/user/profile"]
    answers = await asyncio.gather(*(client.request("GET", path) for path in paths))
    for answer in answers:
        print(answer.request.url.path, answer.status_code, json.dumps(answer.json()))
    await client.log_out()
    print("Logged out.")


async def main() -> int:
    """Runs the tour; 1 when the log-in is refused."""
    parser = argparse.ArgumentParser(description="Logs in like an app on a phone.")
    parser.add_argument("--base", default="http://127.0.0.1:8000", help="where the API is")
    parser.add_argument("--email", required=True)
    options = parser.parse_args()
    password = getpass.getpass() if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
    async with httpx2.AsyncClient(base_url=options.base, timeout=10) as http:
        try:
            await tour(http, options.email, password)
        except LoggedOut as error:
            print(error, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
