"""The page speaks the language that the browser asks for, as far as we have it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keybearer.settings import Settings
from keybearer.web.pages.locales import best_locale

OURS = Settings().locales


@pytest.mark.parametrize(
    ("accepted", "spoken"),
    [
        (None, "en"),
        (b"", "en"),
        (b"de", "de"),
        (b"de-CH, fr;q=0.9", "de"),
        (b"fr;q=0.2, de;q=0.9", "de"),
        (b"pt", "pt-BR"),
        (b"pt-PT,en;q=0.5", "pt-BR"),
        (b"zh-CN,zh;q=0.9", "zh-CN"),
        (b"zh-TW", "zh-CN"),
        (b"PT-br", "pt-BR"),
        (b"xx, yy", "en"),
        (b"de;q=0", "en"),
        (b"de;q=2", "en"),
        (b"de;q=x, fr;q=0.1", "fr"),
        (b"de;level=1, fr", "fr"),
        (b"*", "en"),
        (b"\xff\xfe, ja", "ja"),
    ],
)
def test_the_best_language_is_taken(accepted: bytes | None, spoken: str) -> None:
    assert best_locale(accepted, OURS) == spoken


def test_the_first_locale_is_the_default() -> None:
    assert best_locale(b"xx", ("ja", "en")) == "ja"


@given(st.binary(max_size=3_000))
def test_any_bytes_give_one_of_ours(accepted: bytes) -> None:
    assert best_locale(accepted, OURS) in OURS
