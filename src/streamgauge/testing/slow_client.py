"""Clients that send a byte a second and never come to an end."""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from collections.abc import Sequence

from streamgauge.testing.server import SECONDS, ServerProcess


def drip(server: ServerProcess, openings: Sequence[bytes]) -> list[bytes]:
    """What the server answers to requests that begin so and go on a byte at a time, side by side."""
    answers: dict[int, bytes] = {}
    with contextlib.ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        for number, opening in enumerate(openings):
            connection = stack.enter_context(server.connect())
            connection.sendall(opening)
            selector.register(connection, selectors.EVENT_READ, number)
        started = time.monotonic()
        while selector.get_map() and time.monotonic() < started + SECONDS:
            for key, _ in selector.select(timeout=1.0):
                answers[key.data] = read_all(key.fileobj)  # type: ignore[arg-type]
                selector.unregister(key.fileobj)
            for key in list(selector.get_map().values()):
                with contextlib.suppress(ConnectionError):
                    key.fileobj.sendall(b"a")  # type: ignore[union-attr]
    return [answers[number] for number in sorted(answers)]


def read_all(connection: socket.socket) -> bytes:
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(65_536):
            received += piece
    return received
