"""CRC-32C against published values."""

from __future__ import annotations

import pytest

from streamgauge.wire.crc32c import crc32c


@pytest.mark.parametrize(
    ("message", "published"),
    [  # RFC 3720, B.4, and the check value of the catalogue of parametrised CRC algorithms
        (b"", 0),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
        (b"123456789", 0xE3069283),
    ],
)
def test_published_values(message: bytes, published: int) -> None:
    assert crc32c(message) == published
