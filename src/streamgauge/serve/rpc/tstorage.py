"""The service TStorage: rows in, and the points of a series out. docs/grpc.md says how it is used."""

from __future__ import annotations

from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc

from streamgauge.errors import BadInput, Forbidden, StreamgaugeError
from streamgauge.query.one_series import OneSeries
from streamgauge.query.requests import HistoryQuery
from streamgauge.serve.endpoint import reads, writes
from streamgauge.serve.jobs import job_for
from streamgauge.serve.rpc.calls import Call, Calls, Context
from streamgauge.serve.rpc.codes import code_of, of_envelope, told
from streamgauge.wire import timeseries as wire
from streamgauge.wire.timeseries_points import DataPoints, PointReader
from streamgauge.wire.timeseries_rows import milliseconds

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamgauge.query.budget import Limits
    from streamgauge.query.requests import Answer
    from streamgauge.serve.services import Services

MAX_ERROR_BYTES = 65_536
_NAME = "__name__"


class TStorage:
    """limits: asks for those of one query, which a reload may change."""

    def __init__(self, services: Services, calls: Calls, limits: Callable[[], Limits]) -> None:
        self._services = services
        self._calls = calls
        self._limits = limits

    def handlers(self) -> grpc.GenericRpcHandler:
        """Messages come and go as bytes. Each method is a stream to the library, as `Calls.only` explains."""
        return grpc.method_handlers_generic_handler(
            wire.TSTORAGE,
            {
                "InsertRow": grpc.stream_unary_rpc_method_handler(self.insert_row),
                "InsertRows": grpc.stream_unary_rpc_method_handler(self.insert_rows),
                "Select": grpc.stream_stream_rpc_method_handler(self.select),
            },
        )

    async def insert_row(self, messages: Any, context: Context) -> bytes:
        async def work(call: Call) -> bytes:
            message = await self._calls.only(messages, call)
            await self._services.timeseries.insert_row(message, call.identity.bound)
            return wire.EMPTY

        return await self._calls.answer(wire.INSERT_ROW, context, writes, work)

    async def insert_rows(self, messages: Any, context: Context) -> bytes:
        return await self._calls.answer(wire.INSERT_ROWS, context, writes, partial(self._store, messages))

    async def _store(self, messages: Any, call: Call) -> bytes:
        try:
            async with self._services.timeseries.stream(call.identity.bound) as rows:
                async for message in messages:
                    self._calls.touch(call)
                    await rows.put(message)
                with self._calls.working(call):
                    await rows.finish()
        except StreamgaugeError as error:
            await call.context.abort(code_of(error), told(rows.told(error)))
        return wire.EMPTY

    async def select(self, messages: Any, context: Context) -> None:
        async def work(call: Call) -> None:
            await self._points(wire.decode_filter(await self._calls.only(messages, call)), call)

        await self._calls.answer(wire.SELECT, context, reads, work)

    async def _points(self, wanted: wire.Filter, call: Call) -> None:
        query = OneSeries(_labels(wanted, call.identity.bound), *_times(wanted), DataPoints())
        job = job_for(call.identity, HistoryQuery(query), self._limits())
        with self._calls.working(call):
            answer = await self._services.workers.run(job)
        reader = PointReader()
        problem = b""
        async with aclosing(answer.chunks):
            while (chunk := await self._next(answer, call)) is not None:
                if answer.status != 200:
                    problem = (problem + chunk)[:MAX_ERROR_BYTES]
                    continue
                for point in reader.feed(chunk):
                    await call.context.write(point)
                    self._calls.touch(call)
        if answer.status != 200:
            await call.context.abort(*of_envelope(problem))

    async def _next(self, answer: Answer, call: Call) -> bytes | None:
        """None at the end of an answer."""
        with self._calls.working(call):
            return await anext(answer.chunks, None)


def _labels(wanted: wire.Filter, bound: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """All labels of the series. Who is bound to labels need not name these, and may name no others."""
    if not wanted.metric:
        raise BadInput("metric must be set")
    labels = {_NAME: wanted.metric}
    for name, value in wanted.labels:
        if labels.setdefault(name, value) != value:
            raise BadInput(f'label "{name}" occurs more than once in the filter')
    for name, value in bound:
        if labels.setdefault(name, value) != value:
            raise Forbidden(f'the label "{name}" of the filter is not yours')
    return tuple(labels.items())


def _times(wanted: wire.Filter) -> tuple[int, int]:
    """First and last ms. The store has whole ones: the first at or after the start, and the last before the end."""
    if wanted.start is None or wanted.end is None:
        raise BadInput(f"the filter has no {'start' if wanted.start is None else 'end'}")
    if wanted.start >= wanted.end:
        raise BadInput("the given start is greater than end")
    return milliseconds(wanted.start + 999_999), milliseconds(wanted.end - 1)
