"""Ids are canonical UUIDs of version 7, in the order of their time."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keybearer.domain.ids import is_id, new_id, time_of

nows = st.integers(0, 2**48 - 1)
randoms = st.binary(min_size=10, max_size=10)


def test_the_example_of_the_standard() -> None:
    # RFC 9562 appendix A.6: rand_a CC3, rand_b 18C4DC0C0C07398F.
    random = bytes.fromhex("0cc318c4dc0c0c07398f")
    assert new_id(0x017F22E279B0, random) == "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"


@given(nows, randoms)
def test_an_id_is_a_uuid_of_version_7(now: int, random: bytes) -> None:
    text = new_id(now, random)
    assert is_id(text)
    assert str(uuid.UUID(text)) == text
    assert uuid.UUID(text).variant == uuid.RFC_4122
    assert uuid.UUID(text).version == 7
    assert uuid.UUID(text).int >> 80 == now
    assert time_of(text) == now


@given(nows, nows, randoms, randoms)
def test_ids_sort_by_time(one: int, other: int, first: bytes, second: bytes) -> None:
    if one < other:
        assert new_id(one, first) < new_id(other, second)


@given(nows, st.sets(st.integers(0, 2**62 - 1), max_size=20))
def test_random_bits_are_kept(now: int, lows: set[int]) -> None:
    ids = {new_id(now, b"\0\0" + low.to_bytes(8)) for low in lows}
    assert len(ids) == len(lows)


@pytest.mark.parametrize("random", [b"", bytes(9), bytes(11)])
def test_another_number_of_bytes_is_a_mistake(random: bytes) -> None:
    with pytest.raises(ValueError, match="10 random bytes"):
        new_id(0, random)


@pytest.mark.parametrize("now", [0, 1, 0x0123_4567_89AB, 2**48 - 1])
def test_an_id_tells_its_time(now: int) -> None:
    assert time_of(new_id(now, b"\xff" * 10)) == now


@pytest.mark.parametrize("now", [-1, 2**48])
def test_an_instant_beyond_48_bits_is_a_mistake(now: int) -> None:
    with pytest.raises(ValueError, match="an instant between"):
        new_id(now, bytes(10))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "017F22E2-79B0-7CC3-98C4-DC0C0C07398F",
        "017f22e279b07cc398c4dc0c0c07398f",
        "{017f22e2-79b0-7cc3-98c4-dc0c0c07398f}",
        "urn:uuid:017f22e2-79b0-7cc3-98c4-dc0c0c07398f",
        "017f22e2-79b0-7cc3-98c4-dc0c0c07398f\n",
        " 017f22e2-79b0-7cc3-98c4-dc0c0c07398f",
        "017f22e2-79b0-7cc3-98c4-dc0c0c07398g",
        "\u066017f22e2-79b0-7cc3-98c4-dc0c0c0739f",
        "0" * 100_000,
    ],
)
def test_another_spelling_is_no_id(text: str) -> None:
    assert not is_id(text)
