"""MQTT 3.1.1 as far as it takes to publish, at most once: packets to a broker, and what comes back.

Specification: https://docs.oasis-open.org/mqtt/mqtt/v3.1.1/mqtt-v3.1.1.html
"""

from __future__ import annotations

from streamgauge.errors import BadInput

CONNACK, PINGRESP = 2, 13
PING, DISCONNECT = b"\xc0\x00", b"\xe0\x00"
MAX_PACKET_BYTES = 65_536
"""Of what a broker says to somebody who subscribes to nothing: it needs four."""
MAX_TEXT_BYTES = 65_535
_CLEAN_SESSION, _PASSWORD, _USER = 0x02, 0x40, 0x80
_REFUSED = {
    1: "it does not speak MQTT 3.1.1",
    2: "it does not take our identifier",
    3: "it is not available",
    4: "user or password is wrong",
    5: "we may not come in",
}


def connect(user: str = "", password: str = "") -> bytes:
    """The first packet. The broker gives us a name, keeps nothing of us, and never hangs up because we are silent."""
    flags = _CLEAN_SESSION | (_USER if user or password else 0) | (_PASSWORD if password else 0)
    texts = [""] + ([user] if flags & _USER else []) + ([password] if flags & _PASSWORD else [])
    return _packet(0x10, _text("MQTT") + bytes([4, flags, 0, 0]) + b"".join(map(_text, texts)))


def publish(topic: str, payload: bytes) -> bytes:
    return _packet(0x30, _text(topic) + payload)


def check_accepted(kind: int, body: bytes) -> None:
    """Raises BadInput where the answer to `connect` is not that we are in."""
    if kind != CONNACK or len(body) != 2:
        raise BadInput("this is no MQTT broker")
    if body[1]:
        raise BadInput(f"the broker says that {_REFUSED.get(body[1], f'it refuses us ({body[1]})')}")


def remaining(length: bytes) -> int | None:
    """How many bytes follow the length of a packet; None while it goes on. Raises BadInput."""
    if length[-1] & 0x80:
        if len(length) == 4:
            raise BadInput("a packet's length has more than four bytes")
        return None
    size = sum((byte & 0x7F) << 7 * at for at, byte in enumerate(length))
    if size > MAX_PACKET_BYTES:
        raise BadInput(f"the broker sends a packet of {size} bytes; the limit is {MAX_PACKET_BYTES}")
    return size


def _packet(head: int, body: bytes) -> bytes:
    length = bytearray()
    size = len(body)
    while True:
        length.append(size & 0x7F | (0x80 if size > 0x7F else 0))
        size >>= 7
        if not size:
            return bytes([head]) + bytes(length) + body


def _text(text: str) -> bytes:
    raw = text.encode()
    if len(raw) > MAX_TEXT_BYTES:
        raise BadInput(f"a text of {len(raw)} bytes is too long for MQTT")
    return len(raw).to_bytes(2, "big") + raw
