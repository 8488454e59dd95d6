"""Remote-write requests kept in files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgauge.errors import BadInput
from streamgauge.testing import requests
from streamgauge.testing.requests import Series
from streamgauge.wire.findings import Reason
from streamgauge.wire.imported import Imported
from streamgauge.wire.write_bodies import WriteBodies, length_at


def varint(number: int) -> bytes:
    return bytes([number & 0x7F | 0x80]) + varint(number >> 7) if number > 0x7F else bytes([number])


def framed(*bodies: bytes) -> bytes:
    return b"".join(varint(len(body)) + body for body in bodies)


def body(message: str, *series: Series) -> bytes:
    return requests.snappy((requests.v1 if message == requests.V1 else requests.v2)(series))


def samples(imported: Imported) -> list[tuple[str, int, float, int]]:
    rows = imported.rows
    columns = (rows.codes.tolist(), rows.times.tolist(), rows.values.tolist(), imported.places.tolist())
    return [(rows.texts[code].decode(), time, value, place) for code, time, value, place in zip(*columns, strict=True)]


def a(time: int, value: float) -> Series:
    return Series({"__name__": "a", "x": "1"}, [(time, value)])


def test_both_versions_in_one_file() -> None:
    reader = WriteBodies()
    block = framed(body(requests.V1, a(5, 1.0)), body(requests.V2, a(6, 2.0), Series({"__name__": "b"}, [(7, 3.0)])))
    text = '{__name__="a",x="1"}'
    assert samples(reader.read(block, 10)) == [(text, 5, 1.0, 10), (text, 6, 2.0, 11), ('{__name__="b"}', 7, 3.0, 11)]
    assert reader.series == 2


def test_a_damaged_request_costs_itself_and_is_named() -> None:
    imported = WriteBodies().read(
        framed(
            body(requests.V1, a(1, 1.0)), b"\x05garbage", requests.snappy(b"\x0a\xff"), body(requests.V2, a(2, 2.0))
        ),
        1,
    )
    assert [row[1:] for row in samples(imported)] == [(1, 1.0, 1), (2, 2.0, 4)]
    assert imported.count == 4
    assert imported.findings.refused == {Reason.LINE: 2}
    assert [example[:11] for example in imported.findings.examples] == ["request 2: ", "request 3: "]


def test_series_that_are_refused_name_their_request() -> None:
    imported = WriteBodies().read(framed(body(requests.V1, Series({}, [(1, 1.0)]))), 3)
    assert imported.findings.refused == {Reason.LABELS: 1}
    assert imported.findings.examples[0].startswith("request 3: ")


def test_a_length_that_is_none() -> None:
    assert length_at(b"\x80", 0) is None
    assert length_at(varint(300) + b"x", 0) == (300, 2)
    for data in (b"\xff" * 5, varint(1 << 30)):
        with pytest.raises(BadInput):
            length_at(data, 0)


@given(st.lists(st.binary(max_size=60), max_size=5))
def test_fuzz_any_bodies_are_read_or_counted(bodies: list[bytes]) -> None:
    imported = WriteBodies().read(framed(*bodies), 1)
    assert imported.count == len(bodies)
    assert len(imported.rows) == len(imported.places)
