"""Where Redis is: REDIS_URL in all its forms."""

import pytest

from keybearer.domain.redisurl import parse_redis_url


@pytest.mark.parametrize(
    ("text", "kind", "hosts", "login", "path"),
    [
        ("redis://h", "single", [("h", 6379)], (None, None), (0, "")),
        ("redis://h/12345", "single", [("h", 6379)], (None, None), (12345, "")),
        ("redis://h:1/", "single", [("h", 1)], (None, None), (0, "")),
        ("redis://:a%40b%2F@h/3", "single", [("h", 6379)], (None, "a@b/"), (3, "")),
        ("rediss://ann:p:w@[::1]:7", "single", [("::1", 7)], ("ann", "p:w"), (0, "")),
        (
            "redis+sentinel://a,[fe80::1]:5/keys",
            *("sentinel", [("a", 26379), ("fe80::1", 5)], (None, None), (0, "keys")),
        ),
        ("redis+sentinel://ann:x@a/my%20keys/2", "sentinel", [("a", 26379)], ("ann", "x"),
         (2, "my keys")),
        ("rediss+cluster://A:1,b", "cluster", [("a", 1), ("b", 6379)], (None, None), (0, "")),
        ("redis+cluster://a/0", "cluster", [("a", 6379)], (None, None), (0, "")),
    ],
)  # fmt: skip
def test_each_form_is_read(
    text: str,
    kind: str,
    hosts: list[tuple[str, int]],
    login: tuple[str | None, str | None],
    path: tuple[int, str],
) -> None:
    url = parse_redis_url(text)
    assert (url.kind, [*url.hosts], (url.username, url.password)) == (kind, hosts, login)
    assert (url.db, url.service, url.tls) == (*path, text.startswith("rediss"))
    assert (url.sentinel_username, url.sentinel_password) == (None, None)


def test_sentinels_have_their_own_login() -> None:
    url = parse_redis_url("redis+sentinel://:a@s/k?sentinel_username=ann&sentinel_password=b%26")
    assert (url.sentinel_username, url.sentinel_password, url.password) == ("ann", "b&", "a")
    assert url.secrets == ("a", "b&")
    assert parse_redis_url("redis+sentinel://:a@s/k").secrets == ("a",)
    assert parse_redis_url("redis://h").secrets == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("redis:///0", "takes redis://"),
        ("redis://h:0", "takes redis://"),
        ("redis://h:99999", "takes redis://"),
        ("redis://h:port", "takes redis://"),
        ("redis://a_b c", "takes redis://"),
        ("redis://h#x", "takes redis://"),
        ("redis://[h", "takes redis://"),
        ("redis://bücher", "takes redis://"),
        ("redis+cluster://a,", "takes redis://"),
        ("redis://a/b@h", "takes a number as database"),
        ("redis+tls://h", "takes redis://"),
        ("redis://h\n", "takes redis://"),
        ("redis+sentinel://h/schlüssel", "takes redis://"),
        ("redis+sentinel://h/my keys", "takes redis://"),
        ("redis://h/0X", "takes a number as database"),
        ("redis://a,b", "takes one host"),
        ("redis://ann@h", "takes USER:PASSWORD@"),
        ("redis://ann:@h", "takes USER:PASSWORD@"),
        ("redis://h/x", "takes a number as database"),
        ("redis://h/0/1", "takes a number as database"),
        ("redis://h/123456", "takes a number as database"),
        ("redis+sentinel://h", "takes the name that the sentinels watch"),
        ("redis+sentinel://h/k/x", "takes a number as database"),
        ("redis+cluster://h/1", "takes no database"),
        ("redis://h?db=1", "takes no options"),
        ("redis://h?db=", "takes no options"),
        ("redis+cluster://h?sentinel_password=x", "takes no options"),
        ("redis+sentinel://h/k?sentinel_username=x", "takes no options"),
    ],
)
def test_what_is_none_is_refused_and_told(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_redis_url(text)


def test_no_text_of_it_shows_a_password() -> None:
    url = parse_redis_url("redis+sentinel://ann:horse@a:1,[::1]:2/keys?sentinel_password=horse")
    assert repr(url) == str(url) == "RedisUrl(sentinel at a:1,[::1]:2)"
