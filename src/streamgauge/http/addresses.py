"""Host names and addresses, and who reaches them."""

from __future__ import annotations

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a host name or address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_and_port(address: str) -> tuple[str, int]:
    """Of HOST:PORT as the settings have it, an IPv6 host in brackets; an empty host is all addresses."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
