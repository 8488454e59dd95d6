"""Times of texts are those that DuckDB reads from them, or none."""

from __future__ import annotations

from datetime import UTC, datetime

import pyarrow as pa
import pytest

from streamgauge.query.sql.instants import instants

ZONED = ["2026-01-02T03:04:05Z", "2026-01-02 03:04:05.123456789Z", "2026-01-02T03:04:05.5+02:00"]
NAIVE = ["2026-01-02T03:04:05", "2026-01-02 03:04:05.25"]
OTHERS = [
    "",
    "x",
    "1767323045",
    "2026-01-02",
    "2026-01-02T03Z",
    "2026-01-02T03+02:00",
    "2026-01-02T03:04Z",
    "2026-01-02 03:04:05,123",
    "2026-01-02T03:04:05 Europe/Berlin",
    "1969-12-31T23:59:59.9999999Z",
]


def at(hour: int, fraction: int) -> int:
    return int(datetime(2026, 1, 2, hour, 4, 5, tzinfo=UTC).timestamp()) * 1_000_000 + fraction


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (ZONED, [at(3, 0), at(3, 123_456), at(1, 500_000)]),
        (NAIVE, [at(3, 0), at(3, 250_000)]),
        ([*NAIVE, None, *ZONED], [at(3, 0), at(3, 250_000), None, at(3, 0), at(3, 123_456), at(1, 500_000)]),
        ([ZONED[0], *OTHERS, NAIVE[0]], [at(3, 0), *[None] * len(OTHERS), at(3, 0)]),
        (["2026-02-30T00:00:00Z", NAIVE[0]], [None, at(3, 0)]),  # a day that there is not
        ([None, None], [None, None]),
        ([], []),
    ],
)
def test_times(texts: list[str | None], expected: list[int | None]) -> None:
    array = pa.array(texts, pa.string())
    assert instants(array).to_pylist() == expected
    assert instants(array.dictionary_encode()).to_pylist() == expected


@pytest.mark.parametrize("text", OTHERS)
def test_one_that_is_written_in_another_way_is_none(text: str) -> None:
    assert instants(pa.array([text], pa.string())).to_pylist() == [None]
