from __future__ import annotations

import gzip
from collections.abc import Iterator

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgauge.query.stream import compressed, framed
from streamgauge.wire import snappy


@given(st.lists(st.binary(max_size=50)), st.integers(1, 20))
def test_frames_hold_the_same_bytes(chunks: list[bytes], size: int) -> None:
    frames = list(framed(chunks, size))
    assert b"".join(frames) == b"".join(chunks)
    assert all(len(frame) == size for frame in frames[:-1])
    assert all(0 < len(frame) <= size for frame in frames)


def decompressed(data: bytes, encoding: str, size: int) -> bytes:
    if encoding == "gzip":
        return gzip.decompress(data)
    if encoding == "zstd":
        return pa.Codec("zstd").decompress(data, size).to_pybytes()  # of one frame only
    if encoding == "snappy":
        return snappy.decompress(data, size)
    return data


@pytest.mark.parametrize("encoding", ["identity", "gzip", "zstd", "snappy"])
@given(st.lists(st.binary(max_size=100_000), min_size=1, max_size=5))
def test_content_codings_can_be_taken_back(encoding: str, chunks: list[bytes]) -> None:
    whole = b"".join(chunks)
    assert decompressed(b"".join(compressed(chunks, encoding)), encoding, len(whole)) == whole


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_compression_streams(encoding: str) -> None:
    """Output comes before all of the input was asked for."""
    asked = 0

    def endless() -> Iterator[bytes]:
        nonlocal asked
        for number in range(100):
            asked += 1
            yield b"".join(b"%d," % (number * i) for i in range(100_000))

    assert any(compressed(endless(), encoding))
    assert asked < 10


def test_snappy_compresses_what_comes_in_pieces() -> None:
    chunks = [b"abcdefgh" * 20_000] * 10
    assert len(b"".join(compressed(chunks, "snappy"))) < 100_000
