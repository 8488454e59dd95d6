"""Server-Sent Events from a stream that is cut anywhere."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from streamgauge.wire.sse import SseEvent, SseParser

STREAM = 'retry: 1000\nid: a\n\n:\n\nid: b\ndata: {"é":1}\n\nevent: lost\ndata: 1\ndata:2\n\ndata: x\n\n'.encode()
EVENTS = [SseEvent("message", "b", '{"é":1}'), SseEvent("lost", "b", "1\n2"), SseEvent("message", "b", "x")]


@given(st.lists(st.integers(0, len(STREAM)), max_size=6))
def test_events_are_found_wherever_the_stream_is_cut(cuts: list[int]) -> None:
    parser = SseParser()
    ends = [0, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[start:end] for start, end in itertools.pairwise(ends)]
    assert [event for piece in pieces for event in parser.feed(piece)] == EVENTS
    assert (parser.id, parser.comments) == ("b", 1)
    assert EVENTS[0].json == {"é": 1}


def test_an_id_without_data_is_kept() -> None:
    parser = SseParser()
    assert list(parser.feed(b"id: here\n\n")) == []
    assert parser.id == "here"
