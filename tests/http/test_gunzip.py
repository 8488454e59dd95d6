"""Gzip bodies as they may come, and as they should not."""

from __future__ import annotations

import gzip
import random

import pytest

from streamgauge.errors import FetchFailed
from streamgauge.http.gunzip import MAX_MEMBERS, gunzip

NOISE = random.Random(1).randbytes(100_000)


@pytest.mark.parametrize("members", [[b"a 1\n"], [b""], [NOISE, b"", NOISE, b"a"], [b"x"] * MAX_MEMBERS])
def test_all_members_are_read(members: list[bytes]) -> None:
    data = b"".join(gzip.compress(member) for member in members)
    whole = b"".join(members)
    assert gunzip(data, len(whole)) == whole
    with pytest.raises(FetchFailed, match="the compressed body is cut off"):
        gunzip(data[:-1], len(whole))
    with pytest.raises(FetchFailed, match="the body is no gzip"):
        gunzip(data[:-1] + bytes((data[-1] ^ 1,)), len(whole))


def test_a_member_may_end_where_a_slice_does() -> None:
    first = gzip.compress(b"a")
    cut = next(size for size in range(65_400, 65_536) if len(gzip.compress(NOISE[:size], 0)) == 65_536)
    data = gzip.compress(NOISE[:cut], 0)
    assert gunzip(data + first, 1 << 20) == NOISE[:cut] + b"a"


@pytest.mark.parametrize("member", [b"", b"x"])
def test_members_without_end_are_refused(member: bytes) -> None:
    with pytest.raises(FetchFailed, match=f"more than {MAX_MEMBERS} gzip members"):
        gunzip(gzip.compress(member) * 50_000, 1 << 20)


def test_what_grows_beyond_the_limit_is_refused() -> None:
    with pytest.raises(FetchFailed, match="larger than 10 bytes, which is the limit"):
        gunzip(gzip.compress(b"x" * 6) * 2, 10)
    with pytest.raises(FetchFailed, match="larger than 0 bytes"):
        gunzip(gzip.compress(b"x"), 0)


def test_nothing_is_cut_off() -> None:
    with pytest.raises(FetchFailed, match="cut off"):
        gunzip(b"", 10)
