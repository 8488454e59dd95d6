"""CRC-32C against published values and against the definition, one byte after the other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgauge.testing.remote_read import crc32c as defined
from streamgauge.wire.crc32c import crc32c, crc32c_of


def sums(messages: list[bytes]) -> list[int]:
    data = np.frombuffer(b"".join(messages), np.uint8)
    found: list[int] = crc32c(data, np.cumsum([0, *map(len, messages)])).tolist()
    return found


@pytest.mark.parametrize(
    ("message", "published"),
    [  # RFC 3720, B.4, and the check value of the catalogue of parametrised CRC algorithms
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
        (b"123456789", 0xE3069283),
    ],
)
def test_published_values(message: bytes, published: int) -> None:
    assert sums([message]) == [published]
    assert defined(message) == published


@given(st.lists(st.binary(max_size=700), min_size=1, max_size=8))
def test_every_message_has_its_own(messages: list[bytes]) -> None:
    assert sums(messages) == [defined(message) for message in messages]


def test_long_messages_and_those_of_every_length_around_a_block() -> None:
    data = np.random.default_rng(1).bytes(200_000)
    messages = [data[:length] for length in (*range(10), 127, 128, 129, 255, 256, 257, 65_535, 200_000)]
    assert sums(messages) == [defined(message) for message in messages]


@pytest.mark.parametrize("length", [0, 1, 3, 4, 5, 128, 5685, 5686, 11_371, 45_481, 65_536, 100_003])
def test_one_long_message(length: int) -> None:
    message = np.random.default_rng(length).bytes(length)
    assert crc32c_of(message) == defined(message)
