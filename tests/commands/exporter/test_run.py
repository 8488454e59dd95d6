"""Windows of an export cover its range once, and a window that is too much is asked for in halves."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgauge.commands.exporter.files import CsvFile, NdjsonFile
from streamgauge.commands.exporter.places import TooMuch
from streamgauge.commands.exporter.queries import Wanted
from streamgauge.commands.exporter.run import DAY_MS, FIRST, LAST, MAX_WINDOWS, Export, windows


@dataclass
class Rows:
    """Implements ExportPlace: rows that are only a time, of which an answer has at most `most`."""

    times: Sequence[int]
    most: int
    parts: list[float] = field(default_factory=list)  # how far the export said that it is

    def moments(self, events: bool) -> Sequence[int]:
        return [min(self.times), max(self.times)]

    def rows(self, query: str, parameters: Mapping[str, str | int], form: str) -> Iterator[bytes]:
        start, stop = int(parameters["from_ms"]), int(parameters["to_ms"])
        found = [time for time in self.times if start <= time < stop]
        for number, time in enumerate(found):
            if number == self.most:
                raise TooMuch("there are more")
            yield b"%d\n" % time


@given(st.lists(st.integers(0, 10**13), max_size=4), st.integers(0, 10**13), st.integers(1, 10**13), st.booleans())
def test_windows_cover_the_range_without_gap_or_overlap(
    moments: list[int], start: int, width: int, open_: bool
) -> None:
    start, stop = (FIRST, LAST) if open_ else (start, start + width)
    found = windows(start, stop, moments)
    assert (found[0].start, found[-1].stop) == (start, stop)
    assert all(one.stop == other.start for one, other in itertools.pairwise(found))
    assert all(one.start < one.stop for one in found)
    assert len(found) <= MAX_WINDOWS + 3
    assert sum(one.share for one in found) == pytest.approx(1)


@given(st.lists(st.integers(0, 3 * DAY_MS), min_size=1, max_size=30, unique=True), st.integers(1, 5))
def test_what_is_too_much_for_one_query_is_asked_for_in_parts(times: list[int], most: int) -> None:
    place, out = Rows(sorted(times), most), io.BytesIO()
    file = NdjsonFile(out)
    export = Export(place, Wanted(events=True), Path(), lambda part, rows, size: place.parts.append(part))
    export.run(FIRST, LAST, file, out)
    assert [int(line) for line in out.getvalue().split()] == sorted(times)
    assert file.rows == len(times)
    assert place.parts == sorted(place.parts)
    assert place.parts[-1] == pytest.approx(1)


def test_a_millisecond_that_is_too_much_ends_it() -> None:
    out = io.BytesIO()
    with pytest.raises(TooMuch):
        Export(Rows([5], 0), Wanted(events=True), Path(), lambda *_: None).run(FIRST, LAST, NdjsonFile(out), out)
    assert out.getvalue() == b""


def test_rows_of_csv_are_counted_outside_of_quotes() -> None:
    out = io.BytesIO()
    file = CsvFile(out)
    file.add(io.BytesIO(b'a,b\n1,"x\n""y""\n"\n2,z\n'))
    file.add(io.BytesIO(b"a,b\n3,\n"))
    file.finish()
    assert (file.rows, out.getvalue()) == (3, b'a,b\n1,"x\n""y""\n"\n2,z\n3,\n')
