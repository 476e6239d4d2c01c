"""Answers to checks, encoded: what a key's record has each time is encoded once.

    {"valid":true,"error":null,"key":{"id":…,          head    the same for as long as the grant
       "lastRequest":…,"requestCount":…,               uses    as this very check has left them
       "remaining":null,…}}                            tail    the same

Only how the answer is written is remembered, never a verdict: each request is checked.
"""

import msgspec

from keybearer.domain.model import Grant, Key, Refusal
from keybearer.operations.app import App
from keybearer.operations.declaration import Output
from keybearer.operations.keywire import key_record
from keybearer.operations.verify import Verification, VerifyKey, check, told
from keybearer.operations.wire import Timestamp, instant
from keybearer.verification.verifier import Verified

_REMEMBERED = 1_024
_encode = msgspec.json.Encoder().encode


class _Uses(Output, frozen=True, kw_only=True, gc=False):
    """What each use changes: the members in the middle of a record, in its order."""

    last_request: Timestamp | None
    last_used_ip: str | None
    last_used_user_agent: str | None
    request_count: int


class _Written(msgspec.Struct, frozen=True, gc=False):
    """How the record of a grant is written, from one instant until before another."""

    grant: Grant
    key: Key
    head: bytes
    tail: bytes
    since: int
    until: int


class Verdicts:
    """Checks keys as `verify` does and gives its answers, byte for byte, sooner."""

    def __init__(self) -> None:
        self._written: dict[str, _Written] = {}

    async def verify(self, app: App, asked: VerifyKey) -> bytes:
        """Checks one key for an app that was let in already; raises as `verify`."""
        verified = await check(app, asked)
        if isinstance(verified, Refusal) or verified.grant.metered or not verified.grant.packed:
            return _encode(await told(app, asked, verified))
        return _answer(self._written_of(verified.grant, app.clock.now()), verified)

    def _written_of(self, grant: Grant, now: int) -> _Written:
        written = self._written.get(grant.id)
        # A change of the key or of its owner makes another grant: this very one, or nothing.
        if written is not None and written.grant is grant and written.since <= now < written.until:
            return written
        return self._write(grant, now)

    def _write(self, grant: Grant, now: int) -> _Written:
        key = grant.record
        assert key is not None  # noqa: S101 -- for the type checker
        answer = _encode(Verification(valid=True, error=None, key=key_record(key, now)))
        # No text holds these bytes, as its quotes are escaped; names that an app has chosen stand
        # behind them.
        begin, end = answer.index(b'"lastRequest":'), answer.index(b',"remaining":')
        written = _Written(
            grant, key, answer[:begin], answer[end:], since=now, until=key.status_until(now)
        )
        self._written.pop(grant.id, None)
        if len(self._written) >= _REMEMBERED:
            del self._written[next(iter(self._written))]
        self._written[grant.id] = written
        return written


def _answer(written: _Written, verified: Verified) -> bytes:
    count, at, ip, user_agent = verified.uses(written.key)
    uses = _Uses(
        last_request=instant(at),
        last_used_ip=ip,
        last_used_user_agent=user_agent,
        request_count=count,
    )
    return written.head + _encode(uses)[1:-1] + written.tail
