"""The bytes of a segment: whatever they are, reading them ends, and gives only what was written."""

import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgauge.errors import Corrupt
from streamgauge.store.ports import Record
from streamgauge.store.segment import (
    FRAME_BYTES,
    HEADER_BYTES,
    Frame,
    Frames,
    Gap,
    Header,
    decode_header,
    encode_frame,
    frame_bytes,
)
from streamgauge.testing.thorough import examples

MARK = 0xDECAFBAD
DOCUMENT = Path(__file__).parents[2] / "docs" / "format" / "log.md"

payloads = st.lists(st.binary(max_size=60), max_size=8)


def body(payloads: list[bytes], mark: int = MARK) -> bytes:
    """A segment whose header does not matter, with one record a payload, of commits from 1."""
    records = [Record(commit, 2, payload) for commit, payload in enumerate(payloads, 1)]
    frames = [encode_frame(record, mark, begins=record.commit % 3 == 1) for record in records]
    return bytes(HEADER_BYTES) + b"".join(piece for frame in frames for piece in frame)


def read(data: bytes, mark: int | None = MARK) -> tuple[list[tuple[int, bytes]], list[Gap]]:
    items = list(Frames(memoryview(data), mark, len(data)))
    gaps = [item for item in items if isinstance(item, Gap)]
    found = [item.record for item in items if not isinstance(item, Gap)]
    return [(record.commit, bytes(record.payload)) for record in found], gaps


def numbered(payloads: list[bytes]) -> list[tuple[int, bytes]]:
    return list(enumerate(payloads, 1))


@given(payloads, st.sampled_from([MARK, None]))
@settings(deadline=None)
def test_what_was_written_is_read(payloads: list[bytes], mark: int | None) -> None:
    assert read(body(payloads), mark) == (numbered(payloads), [])


@given(payloads.filter(bool), st.data(), st.sampled_from([MARK, None]))
@settings(max_examples=examples(300), deadline=None)
def test_damage_makes_records_vanish_and_never_appear(
    payloads: list[bytes], data: st.DataObject, mark: int | None
) -> None:
    whole = bytearray(body(payloads))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(HEADER_BYTES, len(whole) - 1))
        wiped = data.draw(st.binary(min_size=1, max_size=40))[: len(whole) - at]
        whole[at : at + len(wiped)] = wiped
    found, _ = read(bytes(whole), mark)
    assert set(found) <= set(numbered(payloads))
    assert [commit for commit, _ in found] == sorted(commit for commit, _ in found)


@given(st.binary(max_size=600), st.sampled_from([MARK, None]))
@settings(max_examples=examples(300), deadline=None)
def test_any_bytes_are_gone_through(noise: bytes, mark: int | None) -> None:
    found, gaps = read(bytes(HEADER_BYTES) + noise, mark)
    assert not found
    assert [(gap.start, gap.end, gap.last) for gap in gaps] == ([(72, 72 + len(noise), True)] if noise else [])


def test_frames_of_another_segment_are_not_taken_for_ours() -> None:
    other = body([b"from another file"] * 3, mark=MARK + 1)[HEADER_BYTES:]
    found, gaps = read(body([b"first"]) + other + body([b"second"])[HEADER_BYTES:])
    assert [payload for _, payload in found] == [b"first", b"second"]
    assert [gap.end - gap.start for gap in gaps] == [len(other)]


def test_a_search_is_bounded_however_many_headers_it_meets() -> None:
    """Only somebody who knows the mark can make such a file; it must cost a little time, not hours."""
    forged = struct.pack("<IIQHHI", 0, 3 << 20, 1, 2, 0, MARK) * (8 << 17)
    data = bytes(HEADER_BYTES) + forged + body([b"after it"])[HEADER_BYTES:]
    found, gaps = read(data)
    assert not found
    assert [(gap.start, gap.end, gap.last) for gap in gaps] == [(HEADER_BYTES, len(data), True)]


HEADER = Header(bytes(range(16)), 7, MARK, 6, 5, 1000, 42)


def test_a_header_comes_back() -> None:
    assert len(HEADER.encode()) == HEADER_BYTES
    assert decode_header(memoryview(HEADER.encode())) == HEADER


@given(
    st.binary(max_size=HEADER_BYTES)
    | st.binary(min_size=HEADER_BYTES - 8, max_size=HEADER_BYTES).map(HEADER.encode()[:8].__add__)
)
@settings(max_examples=examples(200), deadline=None)
def test_any_other_header_is_corrupt(data: bytes) -> None:
    with pytest.raises(Corrupt):
        decode_header(memoryview(data))


def test_the_document_is_about_these_bytes() -> None:
    text = DOCUMENT.read_text()
    assert f"## Header, {HEADER_BYTES} bytes" in text
    assert f"## Frame header, {FRAME_BYTES} bytes" in text


def test_a_frame_is_laid_out_as_the_document_says() -> None:
    frame = b"".join(encode_frame(Record(0x0102030405060708, 0x0A0B, b"payload"), MARK))
    assert len(frame) == frame_bytes(7) == 32
    assert frame[4:] == bytes.fromhex("07000000 0807060504030201 0b0a 0000 adfbcade") + b"payload" + b"\0"
    assert int.from_bytes(frame[:4], "little") == zlib.crc32(frame[4:31])
    following = b"".join(encode_frame(Record(1, 2, b"payload"), MARK, begins=False))
    assert following[16:20] == bytes.fromhex("0200 0100")
    (begun, after) = Frames(memoryview(bytes(HEADER_BYTES) + frame + following), MARK, HEADER_BYTES + 64)
    assert isinstance(begun, Frame)
    assert isinstance(after, Frame)
    assert (begun.begins, after.begins) == (True, False)


def test_without_a_header_a_record_in_the_middle_of_an_append_is_found() -> None:
    whole = bytearray(body([b"lost", b"in the middle"]))
    whole[HEADER_BYTES] ^= 1
    assert read(bytes(whole), mark=None)[0] == [(2, b"in the middle")]
