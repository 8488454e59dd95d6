"""The `relay:` section, as the server's parts use it."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

DEFAULT_LISTEN = "127.0.0.1:3000"


@dataclass(frozen=True, slots=True)
class RelaySettings:
    """Addresses are HOST:PORT; "" is none, and an empty host all addresses. Intervals are seconds.

    listen: of relays; explicit: whether it was configured. http_listen: of the stats API at the root, beside /pulse/ on
    the main listener. live_listen: of the live channel over TCP. token: what callers of the stats API must show; ""
    asks for none. cors_allow: the origin whose pages may call it, or *; "" allows none. allow: from where relays may
    come; empty allows all that reach the listener. aggregate: minutes that one value of the aggregated data is over.
    retention: weeks that the stats API looks back. tls_cert, tls_key: files, "" where TLS is not spoken; tls_client_ca:
    what signs the certificates that whoever connects must then show; tls_client_ids: whether a relay must have its id
    in its own. http_tls: whether http_listen speaks TLS, too.
    """

    listen: str = DEFAULT_LISTEN
    explicit: bool = False
    http_listen: str = ""
    live_listen: str = ""
    poll: float = 60.0
    beat: float = 30.0
    aggregate: int = 15
    retention: int = 1
    token: str = field(default="", repr=False)
    cors_allow: str = ""
    allow: tuple[Network, ...] = ()
    tls_cert: str = ""
    tls_key: str = ""
    tls_client_ca: str = ""
    tls_client_ids: bool = False
    http_tls: bool = False
