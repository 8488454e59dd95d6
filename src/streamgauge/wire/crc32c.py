"""CRC-32C (Castagnoli), RFC 3720, appendix B.4. The standard library knows another polynomial only."""

from __future__ import annotations

import google_crc32c


def crc32c(message: bytes) -> int:
    return int(google_crc32c.value(message))
