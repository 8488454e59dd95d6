"""Server-Sent Events that are no event or sample: https://html.spec.whatwg.org/multipage/server-sent-events.html"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamgauge.live.subscription import Delivery

_ALIVE = b":\n\n"
_RETRY_MS = 1000
"""After which a browser comes back when the connection has ended: it takes 3 s and more by itself."""


def announced(position: str) -> bytes:
    """The beginning of a tail: no event for a browser, but it knows where it stands before the first one comes."""
    return f"retry: {_RETRY_MS}\nid: {position}\n\n".encode()


def written(delivery: Delivery) -> bytes:
    """What was lost stands before what came after it."""
    pieces = [frame.sse for frame in delivery.frames]
    if delivery.lost or delivery.unchecked:
        missing = json.dumps({"lost": delivery.lost, "unchecked": delivery.unchecked}, separators=(",", ":"))
        pieces.insert(0, f"event: lost\ndata: {missing}\n\n".encode())
    return b"".join(pieces) or _ALIVE


def failed(message: str) -> bytes:
    return f"\n\nevent: error\ndata: {json.dumps({'error': message}, ensure_ascii=False)}\n\n".encode()
