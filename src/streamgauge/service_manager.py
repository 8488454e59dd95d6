"""Telling a service manager how the server is: the datagrams of systemd's sd_notify(3), with which it knows when the
server is ready, when it reloads and when it stops."""

from __future__ import annotations

import logging
import socket
import sys
from collections.abc import Mapping

from streamgauge.clock import Clock

LOG = logging.getLogger(__name__)

VARIABLE = "NOTIFY_SOCKET"
"""Set by a service manager that wants to be told: the path of a Unix socket, or @ and an abstract name."""


class ServiceManager:
    """Tells the manager that the environment names; without one nothing is sent. That it cannot be reached is no
    reason to stop serving: it is logged, and the manager's own time limits decide."""

    def __init__(self, environment: Mapping[str, str], clock: Clock) -> None:
        self._address = environment.get(VARIABLE, "")
        self._clock = clock
        self._ready = False

    def ready(self, status: str) -> None:
        """The start is over. `status` is a sentence that `systemctl status` shows."""
        self._ready = True
        self._send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """Followed by `reloaded`. Before `ready` neither is told: the word for the end of both is the same."""
        if self._ready:
            # By this time systemd knows an answer to its own request.
            microseconds = round(self._clock.monotonic() * 1_000_000)
            self._send("RELOADING=1", f"MONOTONIC_USEC={microseconds}", "STATUS=reloading the configuration")

    def reloaded(self, status: str) -> None:
        if self._ready:
            self.ready(status)

    def stopping(self, status: str) -> None:
        self._send("STOPPING=1", f"STATUS={status}")

    def _send(self, *fields: str) -> None:
        if not self._address or sys.platform == "win32":
            return
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        message = "\n".join(" ".join(field.split()) for field in fields)  # a line feed would begin another field
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
                datagrams.setblocking(False)
                datagrams.sendto(message.encode(), address)
        except OSError as error:
            LOG.warning("the service manager at %s was not told %s: %s", self._address, fields[0], error.strerror)
