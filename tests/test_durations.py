"""Durations and sizes read as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgauge.durations import format_duration, format_size, parse_duration, parse_size
from streamgauge.errors import BadInput


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("0", 0),
        ("0s", 0),
        ("15s", 15_000),
        ("1h30m", 5_400_000),
        ("1y", 31_536_000_000),
        ("1w2d", 777_600_000),
        ("5ms", 5),
    ],
)
def test_reads_prometheus_durations(text: str, milliseconds: int) -> None:
    assert parse_duration(text) == milliseconds


@pytest.mark.parametrize("text", ["", "5", "s", "1m1h", "-5m", "1.5h", "5 m", "1h1h", "٣s", "9" * 100 + "s", "300y"])
def test_refuses_what_is_no_duration(text: str) -> None:
    with pytest.raises(BadInput):
        parse_duration(text)


@pytest.mark.parametrize(
    ("milliseconds", "text"), [(1_296_000_000, "15d"), (5_400_000, "1h30m"), (86_400_001, "1d1ms"), (1_000, "1s")]
)
def test_durations_as_prometheus_writes_them(milliseconds: int, text: str) -> None:
    assert format_duration(milliseconds) == text


@given(st.integers(0, 200 * 31_536_000_000))
def test_formatted_duration_reads_back(milliseconds: int) -> None:
    assert parse_duration(format_duration(milliseconds)) == milliseconds


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("512", 512), ("1KB", 1024), ("512MB", 512 << 20), ("2GiB", 2 << 30), ("3 G", 3 << 30)]
)
def test_reads_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MB", "1.5MB", "-1", "1XB", "1iB", "1" * 40])
def test_refuses_what_is_no_size(text: str) -> None:
    with pytest.raises(BadInput):
        parse_size(text)


@given(st.integers(0, 1 << 62))
def test_formatted_size_reads_back(size: int) -> None:
    assert parse_size(format_size(size)) == size


def test_sizes_are_short() -> None:
    assert [format_size(size) for size in (0, 1000, 1024, 512 << 20, 3 << 40)] == ["0", "1000", "1KB", "512MB", "3TB"]
