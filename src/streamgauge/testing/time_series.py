"""Time series over gRPC as somebody else has them: messages compiled from the definition by its own compiler."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, empty_pb2, message_factory, timestamp_pb2


def compile_definition() -> bytes:
    """What the compiler of grpcio-tools makes of wire/proto/timeseries.proto: a FileDescriptorSet."""
    from grpc_tools import protoc  # type: ignore[import-untyped]

    folder = resources.files("streamgauge.wire").joinpath("proto")
    included = resources.files("grpc_tools").joinpath("_proto")
    with tempfile.TemporaryDirectory() as made:
        out = Path(made) / "timeseries.binpb"
        code = protoc.main(
            ["protoc", f"-I{folder}", f"-I{included}", f"--descriptor_set_out={out}", "timeseries.proto"]
        )
        assert code == 0
        return out.read_bytes()


@cache
def messages() -> Mapping[str, Any]:
    """The message classes, by their names."""
    pool = descriptor_pool.DescriptorPool()
    for module in (empty_pb2, timestamp_pb2):
        file = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        pool.Add(file)
    for own in descriptor_pb2.FileDescriptorSet.FromString(compile_definition()).file:
        pool.Add(own)
    found = pool.FindFileByName("timeseries.proto").message_types_by_name
    return {name: message_factory.GetMessageClass(descriptor) for name, descriptor in found.items()}


def datum(metric: str, labels: Iterable[tuple[str, str]], value: float, time: float | None) -> bytes:
    """A TimeSeriesDatum. time: seconds."""
    message = messages()["TimeSeriesDatum"](metric=metric, value=value)
    for name, text in labels:
        message.labels.add(name=name, value=text)
    if time is not None:
        message.timestamp.FromNanoseconds(round(time * 1_000_000_000))
    raw: bytes = message.SerializeToString()
    return raw


def wanted(metric: str, labels: Iterable[tuple[str, str]], start: float, end: float) -> bytes:
    """A Filter. Times are seconds."""
    message = messages()["Filter"](metric=metric)
    for name, text in labels:
        message.labels.add(name=name, value=text)
    message.start.FromNanoseconds(round(start * 1_000_000_000))
    message.end.FromNanoseconds(round(end * 1_000_000_000))
    raw: bytes = message.SerializeToString()
    return raw


def points(answers: Iterable[bytes]) -> list[tuple[float, float]]:
    """(seconds, value) of each DataPoint."""
    found = map(messages()["DataPoint"].FromString, answers)
    return [(point.timestamp.ToNanoseconds() / 1_000_000_000, point.value) for point in found]
