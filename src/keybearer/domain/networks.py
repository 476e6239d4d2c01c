"""Which addresses may call, and which address calls.

The address of a caller is the peer of the connection. Only when that peer is a trusted proxy does
`X-Forwarded-For` count, and it is read from the right, where our own proxies write:

    X-Forwarded-For: 1.1.1.1, 203.0.113.7, 10.0.0.2      peer 10.0.0.1
                     forged   ^ the client   trusted          trusted

Whatever can't be read is nobody's address (None), and None is admitted nowhere.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

MAX_ENTRIES = 100

_LONGEST_ADDRESS = 45  # ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255
_PREFIX_LENGTH = re.compile(r"0|[1-9][0-9]{0,2}", re.ASCII)

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Key = tuple[int, int]
"""IP version and the address as a number: `::1` and `0.0.0.1` are not the same."""


class AllowList:
    """A set of networks, ready to be asked. An empty one admits nobody."""

    __slots__ = ("_addresses", "_networks", "entries")

    def __init__(self, entries: tuple[str, ...]) -> None:
        """Take entries that `parse_allow_list` has returned."""
        addresses: set[_Key] = set()
        networks: list[tuple[int, int, int]] = []
        for entry in entries:
            network = ipaddress.ip_network(entry)
            first, mask = int(network.network_address), int(network.netmask)
            if network.num_addresses == 1:
                addresses.add((network.version, first))
            else:
                networks.append((network.version, mask, first))
        self.entries = entries
        self._addresses = frozenset(addresses)
        self._networks = tuple(networks)

    def __repr__(self) -> str:
        return f"AllowList({self.entries!r})"

    def __bool__(self) -> bool:
        return bool(self.entries)

    def admits(self, ip: str | None) -> bool:
        """Whether `ip` is in one of the networks; False if it is not an address.

        An IPv4 address and the same mapped into IPv6 (`::ffff:203.0.113.7`) are one.
        """
        key = _key(ip) if ip is not None else None
        if key is None:
            return False
        if key in self._addresses:
            return True
        version, number = key
        return any(of == version and number & mask == net for of, mask, net in self._networks)


def parse_allow_list(entries: Iterable[str]) -> tuple[str, ...]:
    """Addresses and CIDR networks in canonical spelling, each once, in the given order.

    ValueError for what can be read in two ways (`010.0.0.1`, `1.2.3`, bits right of the prefix,
    a zone, spaces), for a network of all addresses, and for more than 100 entries.
    """
    return _canonical(
        entries,
        an_entry="Entry {} of the IP allow-list",
        of_all="limits nothing; leave the list empty instead.",
    )


def compile_allow_list(entries: Iterable[str]) -> AllowList:
    """`parse_allow_list`, ready to be asked."""
    return AllowList(parse_allow_list(entries))


def parse_trusted_proxies(text: str) -> AllowList:
    """The setting: addresses and networks with commas between; empty trusts nobody.

    ValueError for `*` and for a network of all addresses: then every client could forge its own.
    """
    if not text.strip(" "):
        return AllowList(())
    entries = [entry.strip(" ") for entry in text.split(",")]
    try:
        return AllowList(
            _canonical(
                entries, an_entry="Entry {}", of_all="would let everybody forge their address."
            )
        )
    except ValueError as wrong:
        raise ValueError(
            f"Trusted proxies are the addresses or networks of your own proxies. {wrong}"
        ) from None


def client_address(
    peer: str | None, forwarded_for: Sequence[str], trusted: AllowList
) -> str | None:
    """The address of the client in canonical spelling, or None if it can't be known.

    `forwarded_for` is every `X-Forwarded-For` header in the order received. It is ignored unless
    `peer` is trusted; then the hops are read from the right up to the first that is not trusted.
    A hop on that way that is not a bare address makes the answer None. If all hops are trusted,
    the leftmost is the client.
    """
    client = canonical_address(peer)
    if not forwarded_for or not trusted.admits(client):
        return client
    for hop in reversed(",".join(forwarded_for).split(",")):
        client = canonical_address(hop.strip(" \t"))
        if not trusted.admits(client):
            return client
    return client


def canonical_address(ip: str | None) -> str | None:
    """The one spelling of an address (IPv4 where it is mapped); None if it is not an address."""
    address = _address(ip) if ip is not None else None
    return None if address is None else str(address)


def throttle_bucket(ip: str | None) -> str:
    """The name under which attempts from `ip` are counted.

    A subscriber holds a whole IPv6 /64, so that is one bucket. Everything that is not an address
    shares the bucket `unknown`: a missing address must never mean that nothing is counted.
    """
    address = _address(ip) if ip is not None else None
    if address is None:
        return "unknown"
    if address.version == 4:
        return str(address)
    return str(ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))


def _canonical(entries: Iterable[str], *, an_entry: str, of_all: str) -> tuple[str, ...]:
    canonical: dict[str, None] = {}
    for number, entry in enumerate(entries, start=1):
        if number > MAX_ENTRIES:
            raise ValueError(f"There are at most {MAX_ENTRIES} entries.")
        try:
            canonical[_parse_entry(entry, of_all)] = None
        except ValueError as wrong:
            raise ValueError(f"{an_entry.format(number)}: {wrong}") from None
    return tuple(canonical)


def _parse_entry(entry: str, of_all: str) -> str:
    text, slash, length = entry.partition("/")
    address = _address_as_written(text)
    if address is None:
        raise ValueError(
            "write an IPv4 address as 203.0.113.7, an IPv6 address as 2001:db8::7, or a network "
            "as 203.0.113.0/24, without spaces, leading zeros or a zone."
        )
    if not slash:
        return str(_unmapped(address))
    if not _PREFIX_LENGTH.fullmatch(length) or int(length) > address.max_prefixlen:
        raise ValueError("the prefix is a number up to 32 for IPv4 and up to 128 for IPv6.")
    bits = int(length)
    plain = _unmapped(address)
    if plain.version != address.version and bits >= 96:
        address, bits = plain, bits - 96
    if bits == 0:
        raise ValueError(f"a network of all addresses {of_all}")
    try:
        network = ipaddress.ip_network((int(address).to_bytes(address.max_prefixlen // 8), bits))
    except ValueError:
        raise ValueError(
            "the bits right of the prefix are 0 in a network, as in 203.0.113.0/24."
        ) from None
    return str(network.network_address) if network.num_addresses == 1 else str(network)


@lru_cache(maxsize=8192)
def _key(ip: str) -> _Key | None:
    address = _address(ip)
    return None if address is None else (address.version, int(address))


def _address(ip: str) -> _Address | None:
    address = _address_as_written(ip)
    return None if address is None else _unmapped(address)


def _address_as_written(ip: str) -> _Address | None:
    if len(ip) > _LONGEST_ADDRESS or "%" in ip:
        return None
    try:
        return ipaddress.ip_address(ip)
    except ValueError:
        return None


def _unmapped(address: _Address) -> _Address:
    mapped = address.ipv4_mapped if address.version == 6 else None
    return address if mapped is None else mapped
