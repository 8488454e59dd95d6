"""Compaction of events ends, writes each event anew a bounded number of times, and keeps days apart."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from math import log2

from hypothesis import given
from hypothesis import strategies as st

from streamgauge.store.events.plan import DAY_NS, MAX_BYTES, MAX_EVENTS, plan_event_compaction
from streamgauge.store.events.ports import UNDIVIDED, EventBlockMeta

FLUSHES = st.lists(st.tuples(st.integers(1, 200_000), st.integers(1, 2000), st.integers(-1, 1)), max_size=60)
"""Events, bytes of each, and by how many days the clock goes on: also back."""


def meta(number: int, day: int, events: int, size: int) -> EventBlockMeta:
    time = day * DAY_NS + number
    return EventBlockMeta(str(number), number, number, time, time, 1, 1, 0, events, 1, size)


def merged(inputs: list[EventBlockMeta], number: int) -> EventBlockMeta:
    return replace(
        inputs[0],
        id=str(number),
        last_commit=inputs[-1].last_commit,
        min_time=min(each.min_time for each in inputs),
        max_time=max(each.max_time for each in inputs),
        level=1 + max(0, *(each.level for each in inputs)),
        events=sum(each.events for each in inputs),
        bytes=sum(each.bytes for each in inputs),
    )


def test_a_block_that_was_not_divided_is_written_anew_when_nothing_else_is_to_be_done() -> None:
    late = replace(meta(4, 100, 10, 10), level=UNDIVIDED)
    others = [meta(number, 100, 10, 10) for number in range(4)]
    assert plan_event_compaction([*others, late]) == [*others, late]
    assert plan_event_compaction([*others[:2], late]) == [late]
    assert plan_event_compaction([*others[:2], merged([late], 5)]) == []


def compacted(blocks: list[EventBlockMeta], idle: bool) -> list[EventBlockMeta]:
    while inputs := plan_event_compaction(blocks, idle):
        at = blocks.index(inputs[0])
        assert blocks[at : at + len(inputs)] == inputs, "neighbours are merged"
        assert len(inputs) >= (2 if idle else 4)
        assert len({each.min_time // DAY_NS for each in inputs}) == 1, "days stay apart"
        one = merged(inputs, 1000 + sum(each.level for each in blocks) + len(blocks))
        assert one.events <= MAX_EVENTS
        assert one.bytes <= MAX_BYTES
        blocks = [*blocks[:at], one, *blocks[at + len(inputs) :]]
    return blocks


@given(FLUSHES)
def test_it_ends_and_writes_an_event_anew_once_for_each_doubling(flushes: list[tuple[int, int, int]]) -> None:
    blocks: list[EventBlockMeta] = []
    day = 100
    for number, (events, size, days) in enumerate(flushes):
        day += days
        blocks = compacted([*blocks, meta(number, day, events, events * size)], False)
    smallest = min((events for events, _, _ in flushes), default=1)
    assert all(each.level <= log2(MAX_EVENTS / smallest) + 1 for each in blocks)
    done = compacted(blocks, True)
    assert sum(each.events for each in done) == sum(events for events, _, _ in flushes)
    for one, following in pairwise(done):
        apart = one.min_time // DAY_NS != following.min_time // DAY_NS
        large = one.events + following.events > MAX_EVENTS or one.bytes + following.bytes > MAX_BYTES
        assert apart or large, "when nothing comes any more all is merged that may be"
