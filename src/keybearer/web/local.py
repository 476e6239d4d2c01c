"""Whether somebody at this very machine asks, and not through a proxy."""

import ipaddress

from starlette.types import Scope

from keybearer.web.host import LOOPBACK, host_name

_FORWARDED = frozenset({b"x-forwarded-for", b"forwarded", b"x-real-ip", b"x-forwarded-host"})


def asked_locally(scope: Scope) -> bool:
    """Whether the peer is the loopback, the name it asked for too, and no proxy stands between.

    The peer is the connection's, never a forwarded address: a proxy on this machine is a loopback
    peer for all the world. The name ends DNS rebinding, where somebody's page makes a browser of
    this machine ask.
    """
    client = scope.get("client")
    if not client or not _is_loopback(client[0]):
        return False
    hosts = []
    for name, value in scope["headers"]:
        if name in _FORWARDED:
            return False
        if name == b"host":
            hosts.append(value)
    return len(hosts) == 1 and host_name(hosts[0]) in LOOPBACK


def _is_loopback(peer: str) -> bool:
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:
        return False  # a Unix socket: whoever may open it is not our question
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
