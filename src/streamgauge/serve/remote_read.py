"""POST /api/v1/read: another Prometheus, or what speaks as one, reads series and samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamgauge.errors import UnsupportedMedia
from streamgauge.query.requests import RawQuery, SeriesFormat
from streamgauge.serve.answers import QueryAnswer
from streamgauge.serve.endpoint import Endpoint
from streamgauge.serve.jobs import job_of
from streamgauge.serve.params import quoted, read_body
from streamgauge.wire import snappy
from streamgauge.wire.read_answers import ChunksFormat, SamplesFormat
from streamgauge.wire.remote_read import ResponseType, decode

if TYPE_CHECKING:
    from starlette.datastructures import Headers
    from starlette.requests import Request
    from starlette.responses import Response

    from streamgauge.serve.params import Params
    from streamgauge.serve.services import HttpOptions, Services

PATH = "/api/v1/read"

MAX_REQUEST_BYTES = 256 << 10
"""Of a request, compressed or not: a regular expression of four times the length that a PromQL query may have."""

_MEDIA = ("application/x-protobuf", "application/x-streamed-protobuf", "application/x-stream-protobuf")
"""What Prometheus sends, and what clients send that name what they would like to get."""

_FORMATS: dict[ResponseType, tuple[SeriesFormat, str]] = {
    ResponseType.SAMPLES: (SamplesFormat(), "snappy"),
    ResponseType.STREAMED_XOR_CHUNKS: (ChunksFormat(), "identity"),
}
"""How each type is written, and its content coding. The client is not asked: the type says which."""


class RemoteRead:
    def __init__(self, services: Services, options: HttpOptions) -> None:
        self._services = services
        self._options = options

    def endpoints(self) -> list[Endpoint]:
        return [Endpoint(PATH, self.read, ("POST",), takes_form=False, bound=True)]

    async def read(self, request: Request, params: Params) -> Response:
        _check_media(request.headers)
        block = await read_body(request, MAX_REQUEST_BYTES, "request")
        asked = decode(snappy.decompress(block, MAX_REQUEST_BYTES))
        form, encoding = _FORMATS[asked.response_type]
        query = RawQuery(asked.queries, form, self._options.external_labels)
        return QueryAnswer(self._services.workers, job_of(request, query, self._options.limits, encoding))


def _check_media(headers: Headers) -> None:
    """Raise UnsupportedMedia, naming what is spoken. Without a type or coding the usual ones are meant."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind and kind not in _MEDIA:
        raise UnsupportedMedia(f"a read request is taken as {_MEDIA[0]}, not as {quoted(kind)}")
    encoding = headers.get("content-encoding", "").strip().lower()
    if encoding and encoding != "snappy":
        raise UnsupportedMedia(f"a read request is taken with the content encoding snappy, not {quoted(encoding)}")
