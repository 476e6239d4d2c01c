import pytest

from keybearer.domain.errors import Failure
from keybearer.operations.links import check_callback, with_parameter
from keybearer.settings import Settings

SETTINGS = Settings(
    base_url="https://auth.example.com/prefix", trusted_origins=("https://app.example.com",)
)


@pytest.mark.parametrize(
    "url",
    [
        "/",
        "/en/account",
        "/en/account?next=https://evil.example//x#top",
        "https://auth.example.com/prefix/en",
        "https://app.example.com",
        "https://app.example.com/welcome?x=1",
    ],
)
def test_own_paths_and_trusted_origins_may_follow(url: str) -> None:
    assert check_callback(SETTINGS, url) == url


def test_nothing_may_follow() -> None:
    assert check_callback(SETTINGS, None) is None


@pytest.mark.parametrize(
    "url",
    [
        "",
        "en/account",
        "//evil.example",
        "///evil.example",
        "/x//evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "/\t/evil.example",
        "\t//evil.example",
        "%09//evil.example",
        "/en/account\r\nX: y",
        "/en account",
        "\uff0f\uff0fevil.example",
        "https:evil.example",
        "https:/evil.example",
        "https:///evil.example",
        "https://evil.example",
        "https://auth.example.com@evil.example",
        "https://auth.example.com\\@evil.example",
        "https://user@auth.example.com/",
        "https://auth.example.com:444/",
        "https://auth.example.com.evil.example",
        "http://auth.example.com",
        "https://app.example.com%2f.evil.example",
        "https://[::1",
        "javascript:alert(1)",
        "data:text/html,x",
        "/" + "a" * 10_000,
    ],
)
def test_nothing_else_may_follow(url: str) -> None:
    with pytest.raises(Failure, match="INVALID_CALLBACK_URL"):
        check_callback(SETTINGS, url)


@pytest.mark.parametrize(
    ("url", "longer"),
    [
        ("/", "/?error=A%26B"),
        ("/?x=1", "/?x=1&error=A%26B"),
        ("/#top", "/?error=A%26B#top"),
        ("https://app.example.com/a?x#y?z", "https://app.example.com/a?x&error=A%26B#y?z"),
    ],
)
def test_a_parameter_is_added_before_the_fragment(url: str, longer: str) -> None:
    assert with_parameter(url, "error", "A&B") == longer
