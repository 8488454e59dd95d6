"""A gRPC server as a command reaches it."""

from __future__ import annotations

import os
from pathlib import Path

from streamgauge.commands.server import TOKEN_VARIABLE
from streamgauge.errors import BadInput
from streamgauge.http.options import HttpOptions, Secret, Tls
from streamgauge.rpc.channel import Peer
from streamgauge.settings import parse_address


def peer(address: str, ca_file: str | None = None, token_file: str | None = None, token: bool = True) -> Peer:
    """address: HOST:PORT; without a host, this machine. token: whether it is shown one, where there is one to show.

    Raises BadInput."""
    named = parse_address(f"localhost{address}" if address.startswith(":") else address)
    for file in filter(None, (ca_file, token_file)):
        if not Path(file).is_file():
            raise BadInput(f"there is no file {file}")
    secret = Secret()
    if token:
        secret = Secret(file=token_file) if token_file else Secret(os.environ.get(TOKEN_VARIABLE, ""))
    options = HttpOptions(scheme="Bearer", credentials=secret, tls=Tls(ca=Secret(file=ca_file or "")))
    return Peer(named, ca_file is not None, options)
