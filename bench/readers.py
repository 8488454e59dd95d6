"""A thousand data readers in one process that costs next to nothing: gRPC answers that were written down beforehand.

Only what a poll needs of HTTP/2: whatever is asked on a connection is answered with the same messages.
"""

from __future__ import annotations

import asyncio
import sys

from streamgauge.wire.timeseries import encode_datum

_DATA, _HEADERS, _SETTINGS, _PING = 0, 1, 4, 6
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1
_PREFACE = 24


def _frame(kind: int, flags: int, stream: int, content: bytes = b"") -> bytes:
    return len(content).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + content


def _header(name: bytes, value: bytes) -> bytes:
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


class _Readers(asyncio.Protocol):
    def __init__(self, messages: bytes) -> None:
        self._messages = messages
        self._rest = b""
        self._skip = _PREFACE

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(_frame(_SETTINGS, 0, 0))

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        at = min(self._skip, len(data))
        self._skip -= at
        while at + 9 <= len(data) and (stop := at + 9 + int.from_bytes(data[at : at + 3], "big")) <= len(data):
            kind, flags, stream = data[at + 3], data[at + 4], int.from_bytes(data[at + 5 : at + 9], "big")
            if kind in (_SETTINGS, _PING) and not flags & _ACK:
                self._transport.write(_frame(kind, _ACK, 0, data[at + 9 : stop] if kind == _PING else b""))
            elif kind in (_DATA, _HEADERS) and flags & _END_STREAM:
                self._answer(stream)
            at = stop
        self._rest = data[at:]

    def _answer(self, stream: int) -> None:
        begin = b"\x88" + _header(b"content-type", b"application/grpc")
        self._transport.write(
            _frame(_HEADERS, _END_HEADERS, stream, begin)
            + _frame(_DATA, 0, stream, self._messages)
            + _frame(_HEADERS, _END_HEADERS | _END_STREAM, stream, _header(b"grpc-status", b"0"))
        )


async def _serve(series: int) -> None:
    messages = [
        encode_datum(f"metric_{at}", {"a": "1", "b": "two", "c": f"{at}"}, float(at), None) for at in range(series)
    ]
    framed = b"".join(b"\x00" + len(message).to_bytes(4, "big") + message for message in messages)
    server = await asyncio.get_running_loop().create_server(lambda: _Readers(framed), "127.0.0.1", 0, backlog=2_000)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
