"""Whose an event stream is: written down with the stream itself, so that it lasts as long as the stream does.

The owner stands first in a stream's headers, under a name that no header of a request can have. Streams that several
clients call alike have different names in the store.
"""

from __future__ import annotations

import json
from urllib.parse import quote

OWNER = ":owner"
_SEPARATOR = "\x1f"
"""Between owner and name: no client can send it as part of a name, and `quote` leaves none in an owner's."""


def owner_mark(owner: str) -> str:
    """What the headers of all streams of an owner begin with, and no others."""
    return f"{{{json.dumps(OWNER)}:{json.dumps(owner)}"


def owned_headers(owner: str, headers: str) -> str:
    """A JSON object of headers as that of a stream of `owner`."""
    return owner_mark(owner) + ("}" if headers == "{}" else f",{headers[1:]}")


def owned_name(owner: str, name: str) -> str:
    """How the store calls the stream that somebody who is bound calls `name`."""
    return f"{quote(owner)}{_SEPARATOR}{name}"


def client_name(name: str) -> str:
    """How a stream is called by those who write it."""
    return name.rpartition(_SEPARATOR)[2]
