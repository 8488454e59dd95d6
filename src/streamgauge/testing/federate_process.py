"""`streamgauge federate` in a process of its own."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from streamgauge.testing.forked import CAN_FORK
from streamgauge.testing.server import ServerProcess


class FederateProcess(ServerProcess):
    """Started by `begin`; stop it, or use it in a `with`."""

    @classmethod
    async def begin(cls, *arguments: str) -> FederateProcess:
        """Ready, on a free port. Raises RuntimeError, with what it printed, when it ends before that."""
        command = ["federate", "--listen", "127.0.0.1:0", *arguments]
        if CAN_FORK:
            client = cls(command, Path(), forked=True)
        else:
            client = cls([sys.executable, "-m", "streamgauge", *command], Path())
        line = await asyncio.to_thread(client.await_line, "listening on http://")
        client.port = int(line.rpartition(":")[2])
        return client
