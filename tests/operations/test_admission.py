"""Who may call: the host app's own log-in counts where no credential is presented."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from keybearer import Auth, Failure
from keybearer.verification.presented import Headers


async def identify(headers: Headers) -> str | None:
    return "user-5" if dict(headers).get(b"cookie") == b"sid=theirs" else None


@pytest.fixture
async def hosted(tmp_path: Path) -> AsyncIterator[Auth]:
    auth = Auth(
        f"sqlite:///{tmp_path / 'k.db'}",
        accounts=False,
        identify=identify,
        token_management=True,
    )
    async with auth.lifespan():
        yield auth


async def test_whoever_is_logged_in_to_the_host_app_has_keys(hosted: Auth) -> None:
    made = await hosted.api.create_api_key(headers={"cookie": "sid=theirs"})
    assert made.reference_id == "user-5"


async def test_whom_the_host_app_does_not_know_is_nobody(hosted: Auth) -> None:
    with pytest.raises(Failure, match="UNAUTHORIZED"):
        await hosted.api.create_api_key(headers={"cookie": "sid=another"})


async def test_a_bad_key_is_refused_before_the_host_app_is_asked(hosted: Auth) -> None:
    with pytest.raises(Failure, match="INVALID_API_KEY"):
        await hosted.api.create_api_key(headers={"cookie": "sid=theirs", "x-api-key": "kb_bad"})
