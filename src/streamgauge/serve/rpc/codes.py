"""What errors are called over gRPC. https://grpc.io/docs/guides/status-codes/"""

from __future__ import annotations

import json

from grpc import StatusCode

from streamgauge.errors import (
    BadInput,
    Busy,
    Corrupt,
    Disabled,
    Forbidden,
    ForeignLabel,
    IndexFull,
    NotFound,
    QueryCanceled,
    QueryFailed,
    QueryTimeout,
    RateLimited,
    StorageError,
    StreamgaugeError,
    TimeNotAdmitted,
    TooLarge,
    Unauthorized,
)

MAX_TEXT, MAX_OTHER_TEXT = 2_000, 500
"""Characters of a message, of ASCII or of any: it travels among the trailers, of which clients take 8 KiB by default,
and each byte beyond ASCII as three."""

_CODES: tuple[tuple[type[StreamgaugeError], StatusCode], ...] = (
    (ForeignLabel, StatusCode.PERMISSION_DENIED),
    (TimeNotAdmitted, StatusCode.OUT_OF_RANGE),
    (BadInput, StatusCode.INVALID_ARGUMENT),
    (Unauthorized, StatusCode.UNAUTHENTICATED),
    (Forbidden, StatusCode.PERMISSION_DENIED),
    (NotFound, StatusCode.NOT_FOUND),
    (TooLarge, StatusCode.RESOURCE_EXHAUSTED),
    (Disabled, StatusCode.UNIMPLEMENTED),
    (QueryFailed, StatusCode.FAILED_PRECONDITION),
    (IndexFull, StatusCode.RESOURCE_EXHAUSTED),
    (RateLimited, StatusCode.RESOURCE_EXHAUSTED),
    (QueryTimeout, StatusCode.DEADLINE_EXCEEDED),
    (QueryCanceled, StatusCode.CANCELLED),
    (Busy, StatusCode.UNAVAILABLE),
    (Corrupt, StatusCode.DATA_LOSS),
    (StorageError, StatusCode.UNAVAILABLE),
)
"""The first that fits."""

_OF_KINDS = {
    "bad_data": StatusCode.INVALID_ARGUMENT,
    "execution": StatusCode.FAILED_PRECONDITION,
    "timeout": StatusCode.DEADLINE_EXCEEDED,
    "canceled": StatusCode.CANCELLED,
    "unavailable": StatusCode.UNAVAILABLE,
}


def code_of(error: StreamgaugeError) -> StatusCode:
    return next((code for kind, code in _CODES if isinstance(error, kind)), StatusCode.INTERNAL)


def told(text: str) -> str:
    limit = MAX_TEXT if text.isascii() else MAX_OTHER_TEXT
    return text if len(text) <= limit else text[: limit - 3] + "..."


def of_envelope(body: bytes) -> tuple[StatusCode, str]:
    """Of the error with which a query worker answers."""
    try:
        envelope = json.loads(body)
        return _OF_KINDS.get(envelope["errorType"], StatusCode.INTERNAL), told(str(envelope["error"]))
    except (ValueError, KeyError, TypeError):
        return StatusCode.INTERNAL, "the query failed"
