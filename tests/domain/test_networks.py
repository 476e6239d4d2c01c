"""Allow-lists admit what they name, and forged headers move nobody."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keybearer.domain.networks import (
    AllowList,
    canonical_address,
    client_address,
    compile_allow_list,
    parse_allow_list,
    parse_trusted_proxies,
    throttle_bucket,
)

NOBODY = AllowList(())
PROXIES = parse_trusted_proxies("10.0.0.0/8, 2001:db8::/32")

addresses = st.ip_addresses().map(str)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("203.0.113.7/32", "203.0.113.7"),
        ("203.0.113.0/24", "203.0.113.0/24"),
        ("2001:DB8::0:7", "2001:db8::7"),
        ("2001:db8::7/128", "2001:db8::7"),
        ("2001:db8::/32", "2001:db8::/32"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.0/120", "203.0.113.0/24"),
        ("::ffff:203.0.113.7/128", "203.0.113.7"),
        ("::fffe:0:0/95", "::fffe:0:0/95"),
        ("128.0.0.0/1", "128.0.0.0/1"),
    ],
)
def test_an_entry_gets_its_canonical_spelling(entry: str, expected: str) -> None:
    assert parse_allow_list([entry]) == (expected,)


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("010.0.0.1", "leading zeros"),
        ("0x0a000001", "write an IPv4 address"),
        ("167772161", "write an IPv4 address"),
        ("1.2.3", "write an IPv4 address"),
        ("1.2.3.4.5", "write an IPv4 address"),
        ("1.2.3.256", "write an IPv4 address"),
        (" 1.2.3.4", "without spaces"),
        ("1.2.3.4\n", "without spaces"),
        ("1.2.3.4 /32", "without spaces"),
        ("\u0661.2.3.4", "write an IPv4 address"),
        ("", "write an IPv4 address"),
        ("*", "write an IPv4 address"),
        ("localhost", "write an IPv4 address"),
        ("fe80::1%eth0", "a zone"),
        ("fe80::%eth0/64", "a zone"),
        ("[::1]", "write an IPv4 address"),
        ("1:" * 5_000, "write an IPv4 address"),
        ("1.2.3.4/33", "the prefix is a number"),
        ("::/129", "the prefix is a number"),
        ("1.2.3.0/024", "the prefix is a number"),
        ("1.2.3.0/-1", "the prefix is a number"),
        ("1.2.3.0/", "the prefix is a number"),
        ("1.2.3.0/24/24", "the prefix is a number"),
        ("1.2.3.0/\u0662", "the prefix is a number"),
        ("1.2.3.0/255.255.255.0", "the prefix is a number"),
        ("1.2.3.4/24", "right of the prefix"),
        ("2001:db8::1/32", "right of the prefix"),
        ("::ffff:0:0/95", "right of the prefix"),
        ("0.0.0.0/0", "a network of all addresses"),
        ("::/0", "a network of all addresses"),
        ("::ffff:0:0/96", "a network of all addresses"),
        ("::ffff:0:0/0", "a network of all addresses"),
        ("1.2.3.4/0", "a network of all addresses"),
    ],
)
def test_an_entry_that_can_be_misread_is_refused(entry: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_allow_list([entry])


def test_the_reason_says_which_entry_it_is() -> None:
    with pytest.raises(ValueError, match="Entry 2 of the IP allow-list"):
        parse_allow_list(["1.2.3.4", "1.2.3"])


def test_the_longest_spelling_of_an_address_is_read() -> None:
    longest = "0000:0000:0000:0000:0000:ffff:255.255.255.255"
    assert canonical_address(longest) == "255.255.255.255"
    assert canonical_address(longest + "0") is None


def test_duplicates_are_merged_in_order() -> None:
    entries = ["1.2.3.4", "::1", "1.2.3.4/32", "::ffff:1.2.3.4", "0::1"]
    assert parse_allow_list(entries) == ("1.2.3.4", "::1")


def test_100_entries_are_the_most() -> None:
    assert len(parse_allow_list(f"10.0.0.{number}" for number in range(100))) == 100
    with pytest.raises(ValueError, match="at most 100 entries"):
        parse_allow_list("10.0.0.1" for _ in range(101))


@given(st.text(max_size=60))
def test_any_text_is_an_entry_or_a_value_error(text: str) -> None:
    try:
        entries = parse_allow_list([text])
    except ValueError:
        return
    assert parse_allow_list(entries) == entries


# ---------------------------------------------------------------------------------- admits


@pytest.mark.parametrize(
    ("entries", "ip", "admitted"),
    [
        (["203.0.113.0/24"], "203.0.113.7", True),
        (["203.0.113.0/24"], "::ffff:203.0.113.7", True),
        (["203.0.113.0/24"], "::ffff:cb00:7107", True),
        (["::ffff:203.0.113.0/120"], "203.0.113.7", True),
        (["203.0.113.7"], "::FFFF:203.0.113.7", True),
        (["203.0.113.0/24"], "203.0.114.7", False),
        (["203.0.113.0/24", "198.51.100.1"], "198.51.100.1", True),
        (["2001:db8::/32"], "2001:db8::7", True),
        (["2001:db8::/32"], "2001:db9::7", False),
        (["::/64"], "0.0.0.1", False),
        (["::/64"], "::ffff:1.2.3.4", False),
        (["::1"], "0.0.0.1", False),
        (["0.0.0.1"], "::1", False),
        (["0.0.0.0/1"], "::1", False),
        (["203.0.113.7"], None, False),
        (["203.0.113.7"], "", False),
        (["203.0.113.7"], "203.0.113.7 ", False),
        (["203.0.113.7"], "203.0.113.7:80", False),
        (["203.0.113.7"], "203.0.113.007", False),
        (["203.0.113.7"], "203.0.113.7/32", False),
        (["fe80::1"], "fe80::1%eth0", False),
        ([], "203.0.113.7", False),
    ],
)
def test_an_allow_list_admits_only_what_it_names(
    entries: list[str], ip: str | None, admitted: bool
) -> None:
    assert compile_allow_list(entries).admits(ip) is admitted


@given(st.ip_addresses(), st.data())
def test_admits_agrees_with_the_standard_library(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, data: st.DataObject
) -> None:
    width = address.max_prefixlen
    bits = data.draw(st.integers(1, width))
    flipped = data.draw(st.integers(0, width - 1))
    other = type(address)(int(address) ^ (1 << flipped))
    network = ipaddress.ip_network(f"{address}/{bits}", strict=False)
    allowed = AllowList((str(network),))
    for one in (address, other):
        mapped = isinstance(one, ipaddress.IPv6Address) and one.ipv4_mapped is not None
        assert allowed.admits(str(one)) == (one in network and not mapped)


def test_an_allow_list_is_true_when_it_has_entries_and_shows_them() -> None:
    assert not NOBODY
    assert compile_allow_list(["1.2.3.4"])
    assert repr(compile_allow_list(["1.2.3.4/32"])) == "AllowList(('1.2.3.4',))"


# --------------------------------------------------------------------------------- proxies


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "expected"),
    [
        ("203.0.113.7", [], "203.0.113.7"),
        ("::ffff:203.0.113.7", [], "203.0.113.7"),
        ("198.51.100.1", ["203.0.113.7"], "198.51.100.1"),
        ("198.51.100.1", ["nonsense"], "198.51.100.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.7"], "203.0.113.7"),
        ("::ffff:10.0.0.1", ["203.0.113.7"], "203.0.113.7"),
        ("2001:db8::1", [" 2001:DB9::7\t"], "2001:db9::7"),
        ("10.0.0.1", ["1.1.1.1, 203.0.113.7, 10.0.0.2"], "203.0.113.7"),
        ("10.0.0.1", ["1.1.1.1", "203.0.113.7"], "203.0.113.7"),
        ("10.0.0.1", ["203.0.113.7", "10.0.0.2"], "203.0.113.7"),
        ("10.0.0.1", ["nonsense, 203.0.113.7"], "203.0.113.7"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["203.0.113.7, unknown"], None),
        ("10.0.0.1", ["203.0.113.7, unknown, 10.0.0.2"], None),
        ("10.0.0.1", ["203.0.113.7:1234"], None),
        ("10.0.0.1", ["[2001:db9::7]"], None),
        ("10.0.0.1", ["203.0.113.7,"], None),
        ("10.0.0.1", [""], None),
        ("10.0.0.1", ["203.0.113.7", ""], None),
        ("10.0.0.1", ["fe80::1%eth0"], None),
        ("10.0.0.1", ["X203.0.113.7"], None),
        (None, ["203.0.113.7"], None),
        (None, [], None),
        ("", ["203.0.113.7"], None),
        ("unix:", [], None),
    ],
)
def test_the_client_is_the_first_hop_from_the_right_that_is_not_ours(
    peer: str | None, forwarded_for: list[str], expected: str | None
) -> None:
    assert client_address(peer, forwarded_for, PROXIES) == expected


@given(st.one_of(st.none(), addresses), st.lists(st.text(max_size=30)))
def test_without_trusted_proxies_no_header_counts(peer: str | None, headers: list[str]) -> None:
    assert client_address(peer, headers, NOBODY) == canonical_address(peer)


@given(st.lists(st.text(alphabet="0123456789abcdef.:, %x", max_size=40)), addresses)
def test_what_the_client_sends_never_outweighs_what_the_proxy_adds(
    forged: list[str], real: str
) -> None:
    proxies = parse_trusted_proxies("10.0.0.1")
    seen = client_address("10.0.0.1", [*forged, real], proxies)
    if real != "10.0.0.1":
        assert seen == canonical_address(real)


def test_trusted_proxies_are_read_from_a_setting() -> None:
    assert parse_trusted_proxies("10.0.0.0/8, ::1").entries == ("10.0.0.0/8", "::1")
    assert not parse_trusted_proxies("")
    assert not parse_trusted_proxies("  ")
    assert not parse_trusted_proxies("").admits("10.0.0.1")


@pytest.mark.parametrize(
    "text", ["*", "0.0.0.0/0", "::/0", "10.0.0.0/8,*", "10.0.0.0/8,", "all", "X", "10.0.0.1X"]
)
def test_a_setting_that_trusts_everybody_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="Trusted proxies are the addresses"):
        parse_trusted_proxies(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("foo", "Entry 1: write an IPv4 address as"),
        ("::1,0.0.0.0/0", "Entry 2: a network of all addresses would let everybody forge"),
        (",".join(["10.0.0.1"] * 101), "at most 100 entries"),
    ],
)
def test_the_reason_speaks_of_proxies_and_of_no_other_list(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        parse_trusted_proxies(text)
    assert "allow-list" not in str(caught.value)


# -------------------------------------------------------------------------------- throttle


@pytest.mark.parametrize(
    ("ip", "bucket"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::", "2001:db8:1:3::/64"),
        ("::1", "::/64"),
        ("", "unknown"),
        (None, "unknown"),
        ("unix:", "unknown"),
    ],
)
def test_a_bucket_is_an_ipv4_address_or_an_ipv6_64(ip: str | None, bucket: str) -> None:
    assert throttle_bucket(ip) == bucket


@given(st.ip_addresses(v=6), st.integers(0, 2**64 - 1))
def test_moving_within_a_64_stays_in_one_bucket(address: ipaddress.IPv6Address, host: int) -> None:
    moved = ipaddress.IPv6Address((int(address) >> 64 << 64) | host)
    if address.ipv4_mapped is None and moved.ipv4_mapped is None:
        assert throttle_bucket(str(address)) == throttle_bucket(str(moved))
