from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgauge.errors import BadInput, StreamgaugeError, TooLarge
from streamgauge.wire import snappy
from streamgauge.wire.snappy_frames import CHUNK_BYTES, IDENTIFIER, decode, encode, encoded_limit, pieces

LIMIT = 1 << 20


def chunk(kind: int, content: bytes) -> bytes:
    return bytes((kind,)) + len(content).to_bytes(3, "little") + content


def block(content: bytes) -> bytes:
    """A compressed chunk with the checksum that `content` has in a stream of ours."""
    checksum = encode(content)[len(IDENTIFIER) + 4 :][:4]
    return chunk(0x00, checksum + snappy.compress(content))


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=5000), st.integers(0, 30))
def test_content_survives(content: bytes, times: int) -> None:
    assert decode(encode(content * times), LIMIT) == content * times
    assert len(encode(content * times)) <= encoded_limit(len(content) * times)


def test_an_empty_stream_is_empty_content() -> None:
    assert decode(b"", LIMIT) == b""
    assert decode(IDENTIFIER, LIMIT) == b""


def test_the_checksum_is_the_masked_castagnoli_of_the_standard() -> None:
    # RFC 3720, B.4: the CRC-32C of 32 bytes of zeros is AA36918A (shown there with its bytes reversed), 8A9136AA
    masked = ((0x8A9136AA >> 15 | 0x8A9136AA << 17) + 0xA282EAD8) & 0xFFFFFFFF
    assert decode(IDENTIFIER + chunk(0x01, masked.to_bytes(4, "little") + bytes(32)), LIMIT) == bytes(32)


def test_a_chunk_holds_64_kib_at_most() -> None:
    content = bytes(range(256)) * 1000
    parts = list(pieces(encode(content), LIMIT))
    assert [len(part) for part in parts] == [65536, 65536, 65536, 59392]
    assert b"".join(parts) == content
    with pytest.raises(BadInput, match="holds 65537 bytes"):
        decode(IDENTIFIER + block(bytes(CHUNK_BYTES + 1)), LIMIT)
    with pytest.raises(BadInput, match="holds 65537 bytes"):
        decode(IDENTIFIER + chunk(0x01, bytes(4 + CHUNK_BYTES + 1)), LIMIT)


def test_chunks_that_may_be_skipped_are() -> None:
    between = chunk(0x80, b"whatever") + chunk(0xFE, bytes(100)) + IDENTIFIER
    assert decode(encode(b"one") + between + encode(b"two"), LIMIT) == b"onetwo"


@pytest.mark.parametrize("kind", [0x02, 0x7F])
def test_chunks_that_may_not_be_skipped_are_refused(kind: int) -> None:
    with pytest.raises(BadInput, match="reserved type"):
        decode(encode(b"one") + chunk(kind, b"whatever"), LIMIT)


@pytest.mark.parametrize(
    "stream",
    [
        b"plain bytes",
        snappy.compress(b"a block, and no stream"),
        IDENTIFIER[:-1],
        IDENTIFIER + b"\x00\x00",
        IDENTIFIER + chunk(0xFF, b"sNaPpX"),
        IDENTIFIER + chunk(0x00, b"abc"),
        IDENTIFIER + chunk(0x01, b""),
        IDENTIFIER + chunk(0x00, b"sums"),
        IDENTIFIER + chunk(0x01, b"sumswrong"),
        encode(b"content")[:-1],
    ],
)
def test_what_is_no_stream_is_refused(stream: bytes) -> None:
    with pytest.raises(BadInput):
        decode(stream, LIMIT)


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    bomb = encode(bytes(LIMIT))
    assert decode(bomb, LIMIT) == bytes(LIMIT)
    with pytest.raises(TooLarge, match="more than 1048575 bytes"):
        decode(bomb, LIMIT - 1)
    announced = IDENTIFIER + chunk(0x00, b"sums" + b"\xff\xff\xff\xff\x0f" + b"\xfe\x01\x00" * 100)  # 4 GiB
    with pytest.raises(BadInput, match="holds 4294967295 bytes"):
        decode(announced, LIMIT)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damage_never_goes_unnoticed(data: st.DataObject) -> None:
    content = data.draw(st.binary(min_size=1, max_size=300)) * data.draw(st.integers(1, 3))
    stream = bytearray(encode(content))
    at = data.draw(st.integers(0, len(stream) - 1))
    stream[at] ^= data.draw(st.integers(1, 255))
    try:
        assert decode(bytes(stream), LIMIT) in (content, b"")  # a chunk that became one to skip
    except (BadInput, TooLarge) as error:
        assert error.message


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0, 1, 2, 0x80, 0xFE, 0xFF]), st.binary(max_size=40)), max_size=5))
def test_nothing_else_is_ever_raised(chunks: list[tuple[int, bytes]]) -> None:
    stream = IDENTIFIER + b"".join(chunk(kind, content) for kind, content in chunks)
    try:
        assert len(decode(stream, 50)) <= 50
    except StreamgaugeError as error:
        assert isinstance(error, (BadInput, TooLarge))
