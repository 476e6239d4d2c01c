from collections.abc import AsyncIterator

import pytest

from keybearer.adapters.sql import service_tokens as sql
from keybearer.domain.credentials import SERVICE_PREFIX, service_token_hash, well_formed
from keybearer.domain.errors import Failure
from keybearer.domain.model import Session
from keybearer.operations import service_tokens
from tests.operations.house import House, open_house

STRANGERS = [
    Session(subject="u", kind="session", id="s", role="admin"),
    Session(subject="u", kind="key", id="k"),
    Session(subject="app", kind="service", id="t"),
]


@pytest.fixture
async def house(ready_url: str) -> AsyncIterator[House]:
    async with open_house(ready_url) as house:
        yield house


async def test_a_token_is_kept_as_its_hash_alone(house: House) -> None:
    token, secret = await service_tokens.create(house.operator, "billing")
    text = secret.reveal()
    assert well_formed(text.encode(), [SERVICE_PREFIX.encode()])
    digest = service_token_hash(text.encode())
    assert await house.app.database.read(lambda tx: sql.by_hash(tx, digest)) == token
    assert (token.name, token.revoked_at) == ("billing", None)


async def test_all_are_listed_oldest_first(house: House) -> None:
    first, _ = await service_tokens.create(house.operator, "first")
    house.clock.time += 1
    second, _ = await service_tokens.create(house.operator, "second")
    assert await service_tokens.listing(house.operator) == [first, second]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("", "INVALID_NAME_LENGTH"),
        ("   ", "INVALID_NAME_LENGTH"),
        ("n" * 65, "INVALID_NAME_LENGTH"),
        ("bell\a", "VALIDATION_ERROR"),
    ],
)
async def test_a_name_has_1_to_64_characters(house: House, name: str, code: str) -> None:
    with pytest.raises(Failure) as raised:
        await service_tokens.create(house.operator, name)
    assert raised.value.code == code
    assert await service_tokens.listing(house.operator) == []


async def test_revoking_drops_what_is_cached_of_it(house: House) -> None:
    token, _ = await service_tokens.create(house.operator, "billing")
    mine, other = house.remember(f"service:{token.id}"), house.remember("service:other")
    house.clock.time += 5
    receipt = await service_tokens.revoke(house.operator, token.id)
    assert (receipt.nodes, receipt.waited_ms) == (0, 0)  # no node serves here
    assert house.cache.get(mine) is None
    assert house.cache.get(other) is not None
    (listed,) = await service_tokens.listing(house.operator)
    assert listed.revoked_at == house.clock.time


async def test_both_are_audited_and_a_second_revocation_is_not(house: House) -> None:
    token, _ = await service_tokens.create(house.operator, "billing")
    await service_tokens.revoke(house.operator, token.id)
    house.clock.time += 5
    await service_tokens.revoke(house.operator, token.id)
    assert await house.events() == [
        ("service_token.created", "success", None),
        ("service_token.revoked", "success", None),
    ]


async def test_an_unknown_token_is_told_so(house: House) -> None:
    with pytest.raises(Failure, match="SERVICE_TOKEN_NOT_FOUND"):
        await service_tokens.revoke(house.operator, "nothing")


@pytest.mark.parametrize("stranger", STRANGERS, ids=lambda session: session.kind)
async def test_only_the_operator_may(house: House, stranger: Session) -> None:
    call = house.call(stranger)
    for refused in (
        service_tokens.create(call, "x"),
        service_tokens.listing(call),
        service_tokens.revoke(call, "x"),
    ):
        with pytest.raises(Failure, match="ADMIN_REQUIRED"):
            await refused
