from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgauge.errors import BadInput, StreamgaugeError, TooLarge
from streamgauge.wire.snappy import compress, decompress, decompressed_length

LIMIT = 1 << 20


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=5000))
def test_content_survives(content: bytes) -> None:
    assert decompress(compress(content), LIMIT) == content


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    bomb = b"\xff\xff\xff\xff\x0f" + b"\xfe\x01\x00" * 100  # announces 4 GiB
    with pytest.raises(TooLarge, match="4294967295 bytes; the limit is 1048576"):
        decompress(bomb, LIMIT)
    assert decompress(compress(bytes(LIMIT)), LIMIT) == bytes(LIMIT)
    with pytest.raises(TooLarge):
        decompress(compress(bytes(LIMIT + 1)), LIMIT)


@pytest.mark.parametrize("block", [b"", b"\x80", b"\xff\xff\xff\xff\xff\x01", b"\xff\xff\xff\xff\x7f"])
def test_a_block_without_a_length_is_refused(block: bytes) -> None:
    with pytest.raises(BadInput, match="decompressed length"):
        decompressed_length(block)


def test_a_block_that_lies_about_its_length_is_refused() -> None:
    block = compress(b"abc" * 100)
    for lie in (b"\x00", b"\xab\x02", b"\xad\x02"):
        with pytest.raises(BadInput, match="damaged"):
            decompress(lie + block[2:], LIMIT)


def test_a_block_cut_short_is_refused() -> None:
    block = compress(bytes(range(256)) * 4)
    for cut in range(2, len(block)):
        with pytest.raises(BadInput):
            decompress(block[:cut], LIMIT)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_random_bytes_raise_nothing_but_our_own_errors(block: bytes) -> None:
    try:
        content = decompress(block, 10_000)
    except StreamgaugeError:
        return
    assert len(content) == decompressed_length(block)
