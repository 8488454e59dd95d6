"""Frames over a socket pair between the server and one query worker: the format, and the worker's end.

    frame = kind (1 byte), length of the payload (4 bytes, little-endian), payload

When either process ends, however it ends, the system closes its end of the pair and the other one reads the end of the
stream: that is how a worker learns that the server was killed, and the server that a worker died.
"""

from __future__ import annotations

import enum
import socket
import struct

HEADER = struct.Struct("<BI")

CHUNK_BYTES = 256 << 10
"""Payload of a CHUNK at most: large enough that a frame costs little beside its copy, small enough that a client that
reads 10 kB/s takes one in half a minute."""
MAX_PAYLOAD_BYTES = 64 << 20
"""Of any frame. A request names every block and segment of its snapshot, some 100 bytes each."""


class Kind(enum.IntEnum):
    READY = 1  # worker: it waits for a request, and refers to nothing of those before
    REQUEST = 2  # server: pickled (query id, job, snapshot, seconds waited)
    CANCEL = 3  # server: the query's id as decimal text
    HEAD = 4  # worker: JSON object of content_type, encoding
    CHUNK = 5  # worker: bytes of the answer
    END = 6  # worker: the answer is whole
    ERROR = 7  # worker, in place of END: JSON object of name (of an error class) and message
    FAULT = 8  # worker: text for the server's log, before an ERROR


def parse_header(buffer: bytes | bytearray, offset: int = 0) -> tuple[Kind, int]:
    """Kind and length. Raises ValueError for what is no frame."""
    kind, length = HEADER.unpack_from(buffer, offset)
    if length > MAX_PAYLOAD_BYTES:
        raise ValueError(f"a frame of {length} bytes")
    return Kind(kind), length


class WorkerChannel:
    """The worker's end; it blocks. One thread may send while another receives."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(True)
        self._socket = sock
        self._held = bytearray()

    def send(self, kind: Kind, payload: bytes = b"", *, more: bool = False) -> None:
        """Send a frame. With `more` it may be held back until the next, so that a small answer is one system call.

        Raises OSError when the server is gone.
        """
        self._held += HEADER.pack(kind, len(payload))
        self._held += payload
        if not more:
            self._socket.sendall(self._held)
            self._held = bytearray()

    def receive(self) -> tuple[Kind, bytes] | None:
        """The next frame; None when the server has closed its end or is gone."""
        header = self._exactly(HEADER.size)
        if header is None:
            return None
        kind, length = parse_header(header)
        payload = self._exactly(length)
        return None if payload is None else (kind, payload)

    def _exactly(self, size: int) -> bytes | None:
        data = bytearray(size)
        view = memoryview(data)
        while view.nbytes:
            try:
                count = self._socket.recv_into(view)
            except OSError:
                return None
            if count == 0:
                return None
            view = view[count:]
        return bytes(data)
