"""Live values to NATS: a message for each, at most once. The client is an extra, imported when it is configured."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from streamgauge.errors import DeliveryFailed
from streamgauge.forward.live.target import LiveValue, NatsTarget, placed

SECONDS = 10
"""For connecting, and until the server says that it has what was sent."""
_FORBIDDEN = re.compile(r"[.*>\s\x00-\x1f\x7f]")


class NatsOutlet:
    """Implements Outlet."""

    def __init__(self, target: NatsTarget) -> None:
        self._target = target

    async def run(self, take: Callable[[], Awaitable[Sequence[LiveValue]]], given: Callable[[], None]) -> None:
        target = self._target
        nats, failure = await asyncio.to_thread(_client)  # which takes a while to import
        failed: list[Exception] = []

        async def note(error: Exception) -> None:
            failed.append(error)

        connection = nats.Client()
        try:
            await connection.connect(
                f"{'tls' if target.tls else 'nats'}://{target.host}:{target.port}",
                error_cb=note,
                allow_reconnect=False,
                connect_timeout=SECONDS,
                user=target.user or None,
                password=target.password or None,
                token=target.token or None,
                tls=ssl.create_default_context() if target.tls else None,
                name="streamgauge",
            )
            while True:
                for value in await take():
                    await connection.publish(placed(target.subject, value, _FORBIDDEN), value.message())
                await connection.flush(SECONDS)
                given()
        except (failure, OSError, ValueError, TimeoutError) as error:
            why = failed[0] if failed else error
            raise DeliveryFailed(f"{target.host}:{target.port}: {str(why) or type(why).__name__}") from None
        finally:
            await connection.close()


def _client() -> tuple[Any, type[Exception]]:
    import nats.aio.client
    import nats.errors

    return nats.aio.client, nats.errors.Error
