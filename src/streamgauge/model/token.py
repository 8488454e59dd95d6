"""A token that was made while the system ran, as the data folder keeps it."""

from __future__ import annotations

from dataclasses import dataclass, field

KEY_HEADER = "x-streamgauge-folder-key"
"""With this a command shows that it can read the lock of the server's data folder."""


@dataclass(frozen=True, slots=True)
class StoredToken:
    """Of the token itself only the SHA-256 of its text is kept. scopes: words such as read. Times are ms."""

    id: str
    name: str
    digest: str = field(repr=False)  # hexadecimal
    scopes: tuple[str, ...]
    labels: tuple[tuple[str, str], ...]
    created: int
    expires: int | None = None
