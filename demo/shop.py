"""A small application with the middleware: `python -m demo.shop PORT SERVER`, where SERVER is pushed to."""

from __future__ import annotations

import sys

import uvicorn

from streamgauge.client import HostCounters, HostMiddleware, HostPusher
from streamgauge.client.asgi import Receive, Scope, Send


async def shop(scope: Scope, receive: Receive, send: Send) -> None:
    """Sells tea, and answers 503 where it is asked for coffee."""
    status, body = (503, b"no coffee\n") if scope["path"] == "/coffee" else (200, b"tea\n")
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def main() -> None:
    port, server = int(sys.argv[1]), sys.argv[2]
    counters = HostCounters(["shop.example"])
    with HostPusher(server, counters, job="shop", instance=f"127.0.0.1:{port}", interval=1):
        uvicorn.run(HostMiddleware(shop, counters), port=port, log_level="warning", lifespan="off")


if __name__ == "__main__":
    main()
