"""The request of remote read: the official protobuf library as the client, and everything that goes wrong."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given
from hypothesis import strategies as st

from streamgauge.errors import BadInput
from streamgauge.model.source import Matcher, MatchOp, Selector
from streamgauge.testing.remote_read import query, request
from streamgauge.testing.requests import nested, varint
from streamgauge.wire.remote_read import MAX_FIELDS, ReadRequest, ResponseType, decode

Field = descriptor_pb2.FieldDescriptorProto
OPS = list(MatchOp)
SAMPLES, CHUNKS = ResponseType.SAMPLES, ResponseType.STREAMED_XOR_CHUNKS
INT64 = st.integers(-(1 << 63), (1 << 63) - 1)


def _official() -> type[Any]:
    """The ReadRequest of Prometheus' definition, of the protobuf library's making."""
    file = descriptor_pb2.FileDescriptorProto(name="read.proto", package="prometheus", syntax="proto3")
    messages: dict[str, list[tuple[int, str, Any, bool]]] = {
        "LabelMatcher": [(1, "type", Field.TYPE_INT32, False)]
        + [(number, name, Field.TYPE_STRING, False) for number, name in ((2, "name"), (3, "value"))],
        "ReadHints": [
            (1, "step_ms", Field.TYPE_INT64, False),
            (2, "func", Field.TYPE_STRING, False),
            (3, "start_ms", Field.TYPE_INT64, False),
            (4, "end_ms", Field.TYPE_INT64, False),
            (5, "grouping", Field.TYPE_STRING, True),
            (6, "by", Field.TYPE_BOOL, False),
            (7, "range_ms", Field.TYPE_INT64, False),
        ],
        "Query": [
            (1, "start_timestamp_ms", Field.TYPE_INT64, False),
            (2, "end_timestamp_ms", Field.TYPE_INT64, False),
            (3, "matchers", "LabelMatcher", True),
            (4, "hints", "ReadHints", False),
        ],
        "ReadRequest": [(1, "queries", "Query", True), (2, "accepted_response_types", Field.TYPE_INT32, True)],
    }
    for message_name, fields in messages.items():
        message = file.message_type.add(name=message_name)
        for number, name, kind, repeated in fields:
            one = message.field.add(name=name, number=number)
            one.label = Field.LABEL_REPEATED if repeated else Field.LABEL_OPTIONAL
            if isinstance(kind, str):
                one.type, one.type_name = Field.TYPE_MESSAGE, f".prometheus.{kind}"
            else:
                one.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("prometheus.ReadRequest"))


Official = _official()
TEXTS = st.text(st.characters(codec="utf-8"), max_size=10)
MATCHERS = st.builds(Matcher, TEXTS, st.sampled_from(OPS), TEXTS)
QUERIES = st.builds(Selector, st.lists(MATCHERS, max_size=4).map(tuple), INT64, INT64)


def official(queries: list[Selector], accepted: list[int]) -> Any:
    message = Official()
    for each in queries:
        out = message.queries.add(start_timestamp_ms=each.start, end_timestamp_ms=each.end)
        for matcher in each.matchers:
            out.matchers.add(type=OPS.index(matcher.op), name=matcher.name, value=matcher.value)
    message.accepted_response_types.extend(accepted)
    return message


@given(st.lists(QUERIES, max_size=4), st.lists(st.integers(0, 1), max_size=3))
def test_what_the_official_library_writes_is_read(queries: list[Selector], accepted: list[int]) -> None:
    wanted = ResponseType(accepted[0]) if accepted else SAMPLES
    assert decode(official(queries, accepted).SerializeToString()) == ReadRequest(tuple(queries), wanted)


@pytest.mark.parametrize(
    ("accepted", "agreed"),
    [
        ([], SAMPLES),
        ([0], SAMPLES),
        ([1], CHUNKS),
        ([1, 0], CHUNKS),
        ([0, 1], SAMPLES),
        ([7, 1, 0], CHUNKS),
        ([-1, 1 << 30, 0], SAMPLES),
    ],
)
def test_the_first_response_type_that_is_known_is_agreed(accepted: list[int], agreed: ResponseType) -> None:
    assert decode(official([], accepted).SerializeToString()).response_type is agreed
    one_by_one = b"".join(b"\x10" + varint(each) for each in accepted)
    assert decode(one_by_one).response_type is agreed


def test_a_request_that_accepts_only_what_is_unknown_is_refused() -> None:
    with pytest.raises(BadInput, match=r"\(7, 9\); accept SAMPLES \(0\) or STREAMED_XOR_CHUNKS \(1\)"):
        decode(request(accept=[7, 9]))


@pytest.mark.parametrize(
    ("hints", "expected"),
    [
        (None, (1000, 9000)),
        ((2000, 8000), (2000, 8000)),
        ((0, 8000), (1000, 8000)),
        ((2000, 99_000), (2000, 9000)),
        ((-5, 99_000), (1000, 9000)),
        ((0, 0), (1000, 9000)),
        ((20_000, 30_000), (20_000, 9000)),  # nothing
    ],
)
def test_hints_narrow_the_range(hints: tuple[int, int] | None, expected: tuple[int, int]) -> None:
    (read,) = decode(request(query(1000, 9000, ("job", "=~", "a|b"), hints=hints))).queries
    assert (read.start, read.end) == expected
    assert read.matchers == (Matcher("job", MatchOp.MATCH, "a|b"),)


def test_unknown_fields_are_skipped() -> None:
    unknown = b"\x78\x05" + nested(14, b"x") + b"\x69" + bytes(8) + b"\x65" + bytes(4)
    matcher = nested(3, unknown + nested(2, b"a") + nested(3, b"b") + unknown)
    data = unknown + nested(1, unknown + b"\x08\x01" + matcher + nested(4, unknown) + b"\x10\x05") + unknown
    assert decode(data) == ReadRequest((Selector((Matcher("a", MatchOp.EQUAL, "b"),), 1, 5),), SAMPLES)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x0a\x05\x08", "protobuf: the field at byte 1 says it has 5 bytes, but only 1 are left"),
        (b"\x08\x05", "protobuf: a query near byte 2 has wire type 0 instead of 2"),
        (b"\x15\x00\x00\x00\x00", "protobuf: a response type near byte 5 has wire type 5 instead of 0"),
        (nested(2, b"\x01\x80"), "protobuf: a number is cut off at byte 4"),
        (nested(1, nested(1, b"")), "protobuf: a time of a query near byte 4 has wire type 2 instead of 0"),
        (nested(1, b"\x18\x01"), "protobuf: a matcher near byte 4 has wire type 0 instead of 2"),
        (nested(1, b"\x20\x01"), "protobuf: the hints of a query near byte 4 has wire type 0 instead of 2"),
        (nested(1, nested(3, b"\x10\x01")), "protobuf: the name of a matcher near byte 6 has wire type 0 instead of 2"),
        (nested(1, nested(3, nested(3, b"\xff"))), "protobuf: the value of a matcher at byte 6 is not UTF-8"),
        (nested(1, nested(3, b"\x08\x04" + nested(2, b"job"))), "the matcher of label 'job' has the unknown type 4"),
        (nested(1, nested(4, nested(3, b""))), "protobuf: a time of hints near byte 6 has wire type 2 instead of 0"),
    ],
)
def test_what_is_wrong_is_named(data: bytes, message: str) -> None:
    with pytest.raises(BadInput) as caught:
        decode(data)
    assert caught.value.message == message


@pytest.mark.parametrize("part", [b"\x08\x01", nested(4, b"\x08\x01")])
def test_a_request_of_too_many_fields_is_refused(part: bytes) -> None:
    fields_of_part = 1 if part[0] == 8 else 2
    most = (MAX_FIELDS - 1) // fields_of_part
    decode(nested(1, part * most))
    for data in (nested(1, part * (most + 1)), nested(1, b"") * (MAX_FIELDS + 1), nested(2, bytes(MAX_FIELDS))):
        with pytest.raises(BadInput, match=f"more than {MAX_FIELDS} fields"):
            decode(data)


WHOLE = request(query(1, 2, ("job", "=", "a"), ("x", "!~", "b.*"), hints=(1, 2)), query(-1, 5), accept=[1, 0])


@given(st.binary(max_size=200))
def test_fuzz_any_bytes_are_a_request_or_bad_input(data: bytes) -> None:
    try:
        decode(data)
    except BadInput as error:
        assert error.message


@given(st.data())
def test_fuzz_a_damaged_request_is_a_request_or_bad_input(data: st.DataObject) -> None:
    damaged = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        change = data.draw(st.sampled_from(["set", "remove", "insert", "cut"]))
        if change == "set":
            damaged[at] = data.draw(st.integers(0, 255))
        elif change == "remove" and len(damaged) > 1:
            del damaged[at]
        elif change == "insert":
            damaged.insert(at, data.draw(st.integers(0, 255)))
        elif change == "cut":
            del damaged[max(at, 1) :]
    try:
        decode(bytes(damaged))
    except BadInput as error:
        assert error.message
