"""A free port of this machine alone."""

from __future__ import annotations

import socket


def bound() -> socket.socket:
    """A socket for a listener."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.bind(("127.0.0.1", 0))
    sock.setblocking(False)
    return sock
