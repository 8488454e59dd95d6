"""Content codings of answers: which one a client takes, and applying it to answers made in the server."""

from __future__ import annotations

import asyncio

import pyarrow as pa

PREFERRED = ("zstd", "gzip", "identity")
"""Fastest first: where a client likes several equally, zstd is several times faster than gzip, and smaller."""

SMALLEST = 1_024
"""Bytes below which a coding saves less than a packet."""
_LONG = 65_536
"""Bytes above which compressing would hold up the event loop."""


def negotiate(accepted: str | None) -> str:
    """The coding for an Accept-Encoding header (RFC 9110, 12.5.3); identity when it takes none of ours."""
    if not accepted:
        return "identity"
    weights: dict[str, float] = {}
    for item in accepted.lower().split(","):
        coding, _, parameter = item.partition(";")
        weights[coding.strip()] = _weight(parameter)
    anything = weights.get("*", 0.0)
    offered = {coding: weights.get(coding, anything) for coding in PREFERRED[:-1]}
    best = max(offered, key=lambda coding: offered[coding])
    return best if 0 < offered[best] >= weights.get("identity", 0.0) else "identity"


async def compress(body: bytes, encoding: str) -> bytes:
    """`body` in the given coding (gzip or zstd)."""
    if len(body) > _LONG:
        return await asyncio.to_thread(_compress, body, encoding)
    return _compress(body, encoding)


def _compress(body: bytes, encoding: str) -> bytes:
    codec = pa.Codec("zstd") if encoding == "zstd" else pa.Codec("gzip")
    return codec.compress(body, asbytes=True)


def _weight(parameter: str) -> float:
    name, _, value = parameter.partition("=")
    if name.strip() != "q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        return 0.0
