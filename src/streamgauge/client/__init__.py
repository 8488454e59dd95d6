"""What programs embed to send events to a server, or to be asked for their values: see docs/client.md."""

from streamgauge.client.asgi import Middleware
from streamgauge.client.backoff import Retry
from streamgauge.client.buffer import Bounds, Counts, Undelivered
from streamgauge.client.excepthook import install_excepthook
from streamgauge.client.host_counters import HostCounters, HostCounts
from streamgauge.client.host_middleware import HostMiddleware, WsgiHostMiddleware
from streamgauge.client.host_pusher import HostPusher, Pushes
from streamgauge.client.logs import Handler, StructlogProcessor
from streamgauge.client.reader import Datum, Reader
from streamgauge.client.relay import Relay, RelayInfo
from streamgauge.client.spans import Span
from streamgauge.client.tracing import TraceContext, current_trace, from_traceparent, traceparent
from streamgauge.client.writer import Writer

__all__ = [
    "Bounds",
    "Counts",
    "Datum",
    "Handler",
    "HostCounters",
    "HostCounts",
    "HostMiddleware",
    "HostPusher",
    "Middleware",
    "Pushes",
    "Reader",
    "Relay",
    "RelayInfo",
    "Retry",
    "Span",
    "StructlogProcessor",
    "TraceContext",
    "Undelivered",
    "Writer",
    "WsgiHostMiddleware",
    "current_trace",
    "from_traceparent",
    "install_excepthook",
    "traceparent",
]
