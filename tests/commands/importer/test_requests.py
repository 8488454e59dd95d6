"""What an import makes of blocks: requests that hold whole ones, in the order of the file."""

from __future__ import annotations

import io
import time

import pytest

from streamgauge.commands.importer import blocks, run
from streamgauge.commands.importer.blocks import line_blocks
from streamgauge.commands.importer.progress import Progress
from streamgauge.commands.importer.run import Import, Options
from streamgauge.commands.importer.stream import Stream
from streamgauge.commands.importer.targets import Answer, SentEvents
from streamgauge.wire.findings import Findings
from streamgauge.wire.sample_lines import Form, SampleLines
from streamgauge.wire.sample_table import SeriesRows, decode


class Requests:
    """A place that takes everything, and keeps it."""

    def __init__(self) -> None:
        self.rows: list[SeriesRows] = []

    def send(self, body: bytes) -> Answer:
        (rows,) = decode(body, Findings())
        self.rows.append(rows)
        return Answer(len(rows), {}, ())

    def send_events(self, events: SentEvents) -> None:
        raise AssertionError("there are none in text")

    def close(self) -> None:
        pass


def imported(text: bytes) -> tuple[list[SeriesRows], Import]:
    target = Requests()
    stream = Stream(io.BufferedReader(io.BytesIO(text)), "it", len(text))
    progress = Progress("it", len(text), 0, time.monotonic)
    work = Import(target, SampleLines(Form.PROMETHEUS), None, progress, Options())
    work.run(line_blocks(stream, 0), lambda: stream.position)
    return target.rows, work


def test_requests_hold_as_many_whole_blocks_as_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(run, "REQUEST_ROWS", 500)
    lines = [f'm{{n="{number}"}} {number} {step}\n' for step in range(200) for number in range(20)]
    requests, work = imported("".join(lines).encode())
    assert [time for rows in requests for time in rows.times.tolist()] == [
        step for step in range(200) for _ in range(20)
    ]
    assert work.tally.stored == work.places == len(lines)
    sizes = [len(rows) for rows in requests]
    assert max(sizes) <= 500
    assert min(sizes[:-1]) > 400, "what is left of blocks has no request of its own"
    assert len({tuple(rows.texts[:]) for rows in requests[:-1]}) == 1


def test_a_block_that_is_larger_than_a_request_goes_with_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "REQUEST_ROWS", 30)
    requests, work = imported("".join(f"m {number} {number}\n" for number in range(100)).encode())
    assert [len(rows) for rows in requests] == [30, 30, 30, 10]
    assert [value for rows in requests for value in rows.values.tolist()] == list(range(100))
    assert work.whole
