"""What every gRPC server is asked about itself: whether it serves (grpc.health.v1), and what (server reflection)."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from streamgauge.serve.endpoint import is_open, reads
from streamgauge.serve.rpc.calls import Call, Calls, Context
from streamgauge.wire.timeseries import TSTORAGE

_HEALTH, _REFLECTION = "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"
SERVICES = (TSTORAGE, _HEALTH, _REFLECTION)


class About:
    """Whether it serves is told to everybody, as over HTTP; to follow that, and to see the definitions, one must be
    known."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._health = health.aio.HealthServicer()
        self._reflection = reflection.aio.ReflectionServicer(SERVICES, pool=_pool())

    async def serving(self) -> None:
        for service in ("", TSTORAGE):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)

    async def stopping(self) -> None:
        await self._health.enter_graceful_shutdown()

    def handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        asked = _lenient(health_pb2.HealthCheckRequest)
        said = health_pb2.HealthCheckResponse.SerializeToString
        checks = {
            "Check": grpc.stream_unary_rpc_method_handler(self.check, asked, said),
            "Watch": grpc.stream_stream_rpc_method_handler(self.watch, asked, said),
        }
        info = grpc.stream_stream_rpc_method_handler(
            self.reflect,
            _lenient(reflection_pb2.ServerReflectionRequest),
            reflection_pb2.ServerReflectionResponse.SerializeToString,
        )
        return (
            grpc.method_handlers_generic_handler(_HEALTH, checks),
            grpc.method_handlers_generic_handler(_REFLECTION, {"ServerReflectionInfo": info}),
        )

    async def check(self, requests: Any, context: Context) -> Any:
        async def work(call: Call) -> Any:
            request = await self._calls.only(requests, call)
            return await self._health.Check(request, context)

        return await self._calls.answer(f"/{_HEALTH}/Check", context, is_open, work, ready=False)

    async def watch(self, requests: Any, context: Context) -> None:
        async def work(call: Call) -> None:
            request = await self._calls.only(requests, call)
            self._calls.last(call)
            await self._health.Watch(request, context)

        await self._calls.answer(f"/{_HEALTH}/Watch", context, reads, work, ready=False)

    async def reflect(self, requests: Any, context: Context) -> None:
        async def work(call: Call) -> None:
            answers: Any = self._reflection.ServerReflectionInfo(requests, context)  # of which the stubs are wrong
            async for answer in answers:
                await context.write(answer)
                self._calls.touch(call)

        await self._calls.answer(f"/{_REFLECTION}/ServerReflectionInfo", context, reads, work, ready=False)


def _lenient(kind: Any) -> Callable[[bytes], Any]:
    """Reads messages; what is none as an empty one, since the library would write a page to the log of each."""

    def read(raw: bytes) -> Any:
        try:
            return kind.FromString(raw)
        except DecodeError:
            return kind()

    return read


def _pool() -> descriptor_pool.DescriptorPool:
    """Definitions of all services. The default pool may have others of the same names in it, which are a program's that
    embeds this server."""
    pool = descriptor_pool.DescriptorPool()
    compiled = resources.files("streamgauge.wire").joinpath("proto", "timeseries.binpb").read_bytes()
    own = descriptor_pb2.FileDescriptorSet.FromString(compiled).file
    for module in (health_pb2, reflection_pb2):
        file = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        pool.Add(file)
    _add_well_known(pool)
    for file in own:
        pool.Add(file)
    return pool


def _add_well_known(pool: descriptor_pool.DescriptorPool) -> None:
    from google.protobuf import empty_pb2, timestamp_pb2

    for module in (empty_pb2, timestamp_pb2):
        file = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        pool.Add(file)
