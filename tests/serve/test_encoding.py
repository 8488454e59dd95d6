from __future__ import annotations

import gzip

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgauge.serve.encoding import PREFERRED, compress, negotiate


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        (None, "identity"),
        ("", "identity"),
        ("gzip", "gzip"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("gzip;q=1.0, zstd;q=0.5", "gzip"),
        ("GZIP", "gzip"),
        ("*", "zstd"),
        ("*;q=0", "identity"),
        ("gzip;q=0", "identity"),
        ("identity, gzip;q=0.5", "identity"),
        ("identity;q=0.5, gzip", "gzip"),
        ("br", "identity"),
        ("gzip;q=x", "identity"),
    ],
)
def test_the_coding_a_client_likes_best(accepted: str | None, encoding: str):
    assert negotiate(accepted) == encoding


@given(st.text())
def test_any_header_gives_a_coding(accepted: str):
    assert negotiate(accepted) in PREFERRED


@pytest.mark.anyio
@pytest.mark.parametrize("size", [0, 5_000, 500_000])
async def test_compressed_bodies_are_what_they_were(size: int):
    body = b"streamgauge_up 1\n" * (size // 17)
    assert gzip.decompress(await compress(body, "gzip")) == body
    assert pa.input_stream(pa.BufferReader(await compress(body, "zstd")), compression="zstd").read() == body
