"""Where one is in a trace: identifiers that go with tasks and threads, and between programs as W3C `traceparent`."""

from __future__ import annotations

import re
import secrets
from contextvars import ContextVar
from dataclasses import dataclass

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A span, as others refer to it: lower-case hexadecimal identifiers of 16 and 8 bytes."""

    trace_id: str
    span_id: str
    sampled: bool = True

    def traceparent(self) -> str:
        """The value of the header that a request to another program should have."""
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"

    def child(self) -> TraceContext:
        """A new span of the same trace."""
        return TraceContext(self.trace_id, secrets.token_hex(8), self.sampled)


CURRENT: ContextVar[TraceContext | None] = ContextVar("streamgauge_trace", default=None)
"""Of the span that the running code is in."""


def new_trace() -> TraceContext:
    return TraceContext(secrets.token_hex(16), secrets.token_hex(8))


def current_trace() -> TraceContext | None:
    """Where the running code is; None outside of all spans."""
    return CURRENT.get()


def traceparent() -> str | None:
    """The header to send along with a request to another program; None outside of all spans."""
    current = CURRENT.get()
    return None if current is None else current.traceparent()


def from_traceparent(header: str | bytes) -> TraceContext | None:
    """What another program sent; None where it is not a traceparent (W3C Trace Context, section 3.2)."""
    text = header.decode("latin-1") if isinstance(header, bytes) else header
    found = _TRACEPARENT.fullmatch(text.strip())
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more) or not trace_id.strip("0") or not span_id.strip("0"):
        return None
    return TraceContext(trace_id, span_id, bool(int(flags, 16) & 1))
