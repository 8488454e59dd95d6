"""URLs, taken apart and put into messages without what may be secret in them."""

from __future__ import annotations

from urllib.parse import SplitResult, unquote, urlsplit

from streamgauge.errors import FetchFailed

_SHOWN = 200  # characters of a URL in a message


def split_url(url: str) -> SplitResult:
    """Raises FetchFailed."""
    try:
        return urlsplit(url)
    except ValueError:  # such as a bracket that is not closed; its words may quote user and password
        raise FetchFailed(f"{url.partition('?')[0].rpartition('@')[2][:_SHOWN]} is no URL") from None


def host_of(parts: SplitResult) -> str:
    """Host and port as they stand there, without user and password."""
    return parts.netloc.rpartition("@")[2]


def user_of(parts: SplitResult) -> tuple[str, str] | None:
    """User and password of a URL that has a user."""
    if "@" not in parts.netloc:
        return None
    return unquote(parts.username or ""), unquote(parts.password or "")


def shown_url(url: str) -> str:
    """A URL for the log: shortened, without user and password, without fragment and the values of parameters."""
    parts = split_url(url)
    fields = [field.partition("=") for field in parts.query.split("&")] if parts.query else []
    query = "&".join(f"{name}=…" if equals else "…" for name, equals, _ in fields)
    return parts._replace(netloc=host_of(parts), query=query, fragment="").geturl()[:_SHOWN]
