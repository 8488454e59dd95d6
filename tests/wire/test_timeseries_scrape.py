"""Answers of a data reader, one after the other: what is remembered of the last changes only how long it takes."""

from __future__ import annotations

from collections.abc import Generator, Sequence

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streamgauge.errors import BadInput
from streamgauge.wire.scraped import DROPPED, REFUSED, Scraped
from streamgauge.wire.timeseries import encode_datum
from streamgauge.wire.timeseries_scrape import PollCache, decode

Row = tuple[str, dict[str, str], float, int | None]

NAMES = ["dropped", "refused", "up", "upper", "a"]
ROWS = st.tuples(
    st.sampled_from(NAMES),
    st.sampled_from([{}, {"a": "1"}, {"a": ""}, {"a": "1", "b": "2"}]),
    st.sampled_from([0.0, -0.0, 1.5, float("inf")]),
    st.sampled_from([None, 0, 1, 999_999, 1_700_000_000_000_000_000]),
)
ANSWERS = st.lists(st.lists(ROWS, max_size=6), max_size=4)


class Series:
    """Ids by labels, those of two names apart."""

    def __init__(self) -> None:
        self.ids: dict[tuple[tuple[bytes, bytes], ...], int] = {}

    def of(self, pairs: Sequence[tuple[bytes, bytes]]) -> int:
        name = dict(pairs)[b"__name__"]
        if name in (b"dropped", b"refused"):
            return DROPPED if name == b"dropped" else REFUSED
        return self.ids.setdefault(tuple(sorted(pairs)), len(self.ids))


def whole(reading: Generator[None, None, tuple[Scraped, int]]) -> tuple[Scraped, int]:
    while True:
        try:
            next(reading)
        except StopIteration as end:
            found: tuple[Scraped, int] = end.value
            return found


def message(row: Row) -> bytes:
    return encode_datum(*row)


def shown(found: tuple[Scraped, int]) -> list[object]:
    scraped, collisions = found
    stamps = None if scraped.stamps is None else scraped.stamps.tolist()
    numbers = scraped.lines, scraped.kept, scraped.duplicates, scraped.refused, collisions
    return [scraped.series.tolist(), scraped.values.tobytes(), stamps, *numbers]


@given(ANSWERS)
@example([[("up", {}, 1.0, 0), ("up", {}, 2.0, 1_000_000)], [("up", {}, 1.0, 0), ("up", {}, 2.0, 1)]])
@example([[("up", {"a": ""}, 1.0, None), ("a", {}, 2.0, None)], [("up", {}, 1.0, None), ("a", {}, 2.0, None)]])
def test_an_answer_means_the_same_whatever_the_last_one_was(answers: list[list[Row]]) -> None:
    series, cache = Series(), PollCache()
    for answer in answers:
        messages = [message(row) for row in answer]
        cached = whole(decode(messages, cache, series.of))
        assert shown(cached) == shown(whole(decode(messages, PollCache(), series.of)))


def test_an_answer_of_the_same_series_has_the_very_same_array() -> None:
    series, cache = Series(), PollCache()
    first, _ = whole(decode([message((name, {}, 1.0, None)) for name in ("a", "dropped", "up")], cache, series.of))
    asked = len(series.ids)
    again, _ = whole(decode([message((name, {}, 2.0, 5)) for name in ("a", "dropped", "up")], cache, series.of))
    assert again.series is first.series
    assert (first.same, again.same) == (False, True)
    assert (again.values.tolist(), again.added, len(series.ids)) == ([2.0, 2.0], 0, asked)
    fewer, _ = whole(decode([message(("up", {}, 3.0, None))], cache, series.of))
    assert (fewer.series.tolist(), fewer.same) == ([series.of([(b"__name__", b"up")])], False)


@pytest.mark.parametrize(
    ("tail", "expected"),
    [
        (b"\x19\x00\x00", "row 2: protobuf: a number is cut off at byte 7"),
        (b"\x22\x02\x10", "row 2: protobuf: the field at byte 5 says it has 2 bytes, but only 1 are left"),
        (b"\x22\x06\x10\x80\x94\xeb\xdc\x03", "row 2: a timestamp has 1000000000 nanoseconds; they are 0 to 999999999"),
        (b"\x12\x06\x0a\x01a\x12\x01\xff", "labels"),
    ],
)
def test_what_stands_behind_a_series_that_is_known_is_looked_at_all_the_same(tail: bytes, expected: str) -> None:
    def series_of(pairs: Sequence[tuple[bytes, bytes]]) -> int:
        if len(pairs) > 1:
            raise BadInput("labels")
        return len(pairs[0][1])

    cache = PollCache()
    known = [message((name, {}, 0.0, None)) for name in ("a", "up")]
    whole(decode(known, cache, series_of))
    with pytest.raises(BadInput) as error:
        whole(decode([known[0], known[1] + tail], cache, series_of))
    assert expected in str(error.value)
    scraped, _ = whole(decode(known, cache, series_of))
    assert np.array_equal(scraped.series, [1, 2])
