"""Every error streamgauge raises on purpose: one tree, each class saying whose fault it is.

    StreamgaugeError
    ├── ClientError            what was asked cannot be done; asking again unchanged will not help
    │   ├── BadInput           malformed or refused input (400)
    │   │   ├── ForeignLabel   a series with another value of a label than its sender is bound to (400)
    │   │   ├── TimeNotAdmitted  a sample too old, or too far ahead of the clock (400)
    │   │   └── NotAllowed     a scrape that is well formed, and beyond a limit or made nameless by relabelling (400)
    │   ├── Unauthorized       no credentials, or none that are good (401)
    │   ├── Forbidden          foreign Host or Origin, missing permission (403)
    │   ├── NotFound           (404)
    │   ├── IndexConflict      events of a stream that do not follow on what is stored of it (409)
    │   ├── UpstreamRefused    who is asked whether a cluster may push says no, in another way (4xx)
    │   ├── TooLarge           over a size limit (413)
    │   ├── Disabled           a setting has it switched off (503, as Prometheus answers)
    │   ├── UnsupportedMedia   content type or encoding we do not speak (415)
    │   ├── PushRefused        a push that is well formed and breaks a rule for pushes (422)
    │   │   └── TooManySeries  its cluster would have more series than it may (422)
    │   ├── QueryFailed        a query that is valid but cannot be evaluated (422)
    │   └── ConfigError        the configuration file or a flag is wrong
    ├── Busy                   we cannot do it now; trying again later can help
    │   ├── Overloaded         the server is at a limit (503)
    │   │   └── IndexFull      no new series fits the index; a write that has others refuses its new ones alone (400)
    │   │       ├── MetricFull a metric has as many series as it may have
    │   │       └── LabelFull  a label has as many values as it may have
    │   ├── NotReady           starting or stopping (503)
    │   ├── RateLimited        this client comes too often (429)
    │   ├── QueryTimeout       out of time (503)
    │   └── QueryCanceled      somebody cancelled it (503)
    ├── FetchFailed            another server did not give what was asked of it: a scrape target, a discovery
    │   └── BodyTooLarge       its answer is over a size limit
    ├── DeliveryFailed         a destination does not take events, or how far it is cannot be noted
    ├── ListenFailed           an address cannot be listened on: taken, unknown or forbidden
    └── StorageError           the disk, or what is on it
        ├── ReadOnly           writes are refused until the disk recovers (503)
        ├── SyncFailed         this write is not durable (503)
        ├── Corrupt            bytes on disk are not what was written (500)
        │   └── Unreadable     the disk does not give them back; it may do so later (500)
        ├── FolderInUse        another process holds the data folder
        └── FormatTooNew       written by a newer streamgauge

`status` is the HTTP status, `kind` the word the Prometheus API uses for it (`errorType`).
Foreign exceptions are translated once, where they enter; a message names the offending thing and never holds
a secret.
"""

from __future__ import annotations


class StreamgaugeError(Exception):
    """Base of all. `message` is written for the person who reads it."""

    status = 500
    kind = "internal"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ClientError(StreamgaugeError):
    status = 400
    kind = "bad_data"


class BadInput(ClientError):
    pass


class ForeignLabel(BadInput):
    pass


class TimeNotAdmitted(BadInput):
    pass


class NotAllowed(BadInput):
    pass


class Unauthorized(ClientError):
    """`challenges` are what the answer's WWW-Authenticate says, one for each way to come."""

    status = 401
    kind = "unauthorized"

    def __init__(self, message: str, challenges: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.challenges = challenges


class Forbidden(ClientError):
    status = 403
    kind = "forbidden"


class NotFound(ClientError):
    status = 404
    kind = "not_found"


class IndexConflict(ClientError):
    """`expected` is the index that the stream's next event must have."""

    status = 409
    kind = "conflict"

    def __init__(self, message: str, expected: int = 1) -> None:
        super().__init__(message)
        self.expected = expected


class UpstreamRefused(ClientError):
    """`status` is what was answered, which our answer has, too."""

    status = 403
    kind = "forbidden"

    def __init__(self, message: str, status: int = 403) -> None:
        super().__init__(message)
        self.status = status


class TooLarge(ClientError):
    status = 413


class Disabled(ClientError):
    status = 503
    kind = "unavailable"


class UnsupportedMedia(ClientError):
    status = 415


class PushRefused(ClientError):
    status = 422


class TooManySeries(PushRefused):
    pass


class QueryFailed(ClientError):
    status = 422
    kind = "execution"


class ConfigError(ClientError):
    pass


class Busy(StreamgaugeError):
    """`retry_after` is in seconds; None when we cannot tell."""

    status = 503
    kind = "unavailable"

    def __init__(self, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Overloaded(Busy):
    pass


class IndexFull(Overloaded):
    """`name` is that of the metric or label that is full; "" when it is the index."""

    def __init__(self, message: str, name: str = "") -> None:
        super().__init__(message)
        self.name = name


class MetricFull(IndexFull):
    pass


class LabelFull(IndexFull):
    pass


class NotReady(Busy):
    pass


class RateLimited(Busy):
    status = 429


class QueryTimeout(Busy):
    kind = "timeout"


class QueryCanceled(Busy):
    kind = "canceled"


class FetchFailed(StreamgaugeError):
    pass


class BodyTooLarge(FetchFailed):
    pass


class DeliveryFailed(StreamgaugeError):
    pass


class ListenFailed(StreamgaugeError):
    pass


class StorageError(StreamgaugeError):
    pass


class ReadOnly(StorageError):
    status = 503
    kind = "unavailable"


class SyncFailed(StorageError):
    status = 503
    kind = "unavailable"


class Corrupt(StorageError):
    pass


class Unreadable(Corrupt):
    pass


class FolderInUse(StorageError):
    pass


class FormatTooNew(StorageError):
    pass
