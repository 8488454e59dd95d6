"""Live values to NATS: a message for each, at most once. The client is an extra, imported when it is configured."""

from __future__ import annotations

import asyncio
import re
import ssl
from typing import Any

from streamgauge.errors import DeliveryFailed
from streamgauge.forward.live.connection import until_one_fails
from streamgauge.forward.live.target import Given, NatsTarget, Take, placed

SECONDS = 10
"""For connecting, and until the server says that it has what was sent."""
_FORBIDDEN = re.compile(r"[.*>\s]")
MAX_SUBJECT_BYTES = 4_000
"""A server hangs up on a line of more than 4,096 bytes, in which a word and a size stand beside the subject."""


class NatsOutlet:
    """Implements Outlet."""

    def __init__(self, target: NatsTarget) -> None:
        self._target = target

    async def run(self, take: Take, given: Given) -> None:
        target = self._target
        nats, failure = await asyncio.to_thread(_client)  # which takes a while to import
        failed: list[Exception] = []

        async def note(error: Exception) -> None:
            failed.append(error)

        gone = asyncio.Event()

        async def note_end() -> None:
            gone.set()

        connection = nats.Client()
        try:
            await connection.connect(
                f"{'tls' if target.tls else 'nats'}://{target.host}:{target.port}",
                error_cb=note,
                closed_cb=note_end,
                allow_reconnect=False,
                connect_timeout=SECONDS,
                user=target.user or None,
                password=target.password or None,
                token=target.token or None,
                tls=ssl.create_default_context() if target.tls else None,
                name="streamgauge",
            )
            await until_one_fails(_until_gone(gone), self._send(connection, take, given))
        except (failure, OSError, EOFError, ValueError) as error:
            why = failed[0] if failed else error
            raise DeliveryFailed(f"{target.host}:{target.port}: {str(why) or type(why).__name__}") from None
        finally:
            await connection.close()

    async def _send(self, connection: Any, take: Take, given: Given) -> None:
        while True:
            unnamed = 0
            for value in await take():
                subject = placed(self._target.subject, value, _FORBIDDEN)
                if len(subject.encode()) > MAX_SUBJECT_BYTES:
                    unnamed += 1
                else:
                    await connection.publish(subject, value.message())
            await connection.flush(SECONDS)
            given(unnamed)


async def _until_gone(gone: asyncio.Event) -> None:
    await gone.wait()
    raise EOFError("the server has hung up")


def _client() -> tuple[Any, type[Exception]]:
    import nats.aio.client
    import nats.errors

    return nats.aio.client, nats.errors.Error
