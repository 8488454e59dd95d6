"""JSONB is read and written as SQLite does. The blobs here were made by SQLite 3.54."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streamgauge.errors import BadInput
from streamgauge.wire.jsonb import json_of, jsonb_of

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
BLOBS = {
    "cc14176113311762cb0c35312e35452d326535010200": '{"a":1,"b":[1.5,-2e5,true,false,null]}',
    "98785c6e5c7530306539": '"x\\n\\u00e9"',
    "0b": "[]",
    "0c": "{}",
    "c714c3a9c3a9c3a9c3a9c3a9c3a9c3a9c3a9c3a9c3a9": '"éééééééééé"',
    "cc2b176144307831461762262e35176326352e1764133"
    "31765652d39653939391768a969745c2773205c783431": '{"a":31,"b":0.5,"c":5.0,"d":3,"e":-9e999,"h":"it\'s \\u0041"}',
    "6b5b4b3c176b0b": '[[[{"k":[]}]]]',
}


@pytest.mark.parametrize(("blob", "text"), BLOBS.items())
def test_blobs_of_sqlite_are_read(blob: str, text: str) -> None:
    assert json_of(bytes.fromhex(blob)) == text


@pytest.mark.parametrize("blob", BLOBS)
def test_every_beginning_of_a_blob_is_refused(blob: str) -> None:
    data = bytes.fromhex(blob)
    for size in range(len(data)):
        with pytest.raises(BadInput):
            json_of(data[:size])


@given(JSON, st.booleans())
@example("\ud800", True)
@example({"": {"a": "x" * 70_000}}, False)
def test_what_is_written_is_read_back(value: object, ascii_: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_)
    assert json.loads(json_of(jsonb_of(text))) == value


def test_numbers_stay_as_they_are_written_and_members_doubled() -> None:
    text = '{"a":1e400,"a":123456789012345678901234567890,"b":-0.10}'
    assert json_of(jsonb_of(text)) == text


@given(st.binary(max_size=40))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        text = json_of(data)
    except BadInput:
        return
    json.loads(text)


def test_depth_has_a_limit() -> None:
    deep = b"\x0b"
    for _ in range(1500):
        size = len(deep)
        deep = (bytes([size << 4 | 11]) if size < 12 else b"\xdb" + size.to_bytes(2, "big")) + deep
    with pytest.raises(BadInput, match="too deeply"):
        json_of(deep)
    with pytest.raises(BadInput, match="too deeply"):
        jsonb_of("[" * 100_000 + "]" * 100_000)
