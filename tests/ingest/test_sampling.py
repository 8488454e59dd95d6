from __future__ import annotations

import asyncio

import numpy as np

from streamgauge.clock import ManualClock
from streamgauge.ingest.sampling import SLICE_SERIES, Recorder, labelled, rounds, single
from streamgauge.model.arrays import STALE_BITS
from streamgauge.model.batch import Metadata
from streamgauge.testing import MemorySink

START = 1_790_000_000_000


def times_of_rounds(minutes: int, busy: dict[int, float] | None = None, jump: int = 0) -> list[float]:
    """Seconds after the start at which rounds happen; round n takes busy[n] seconds."""
    clock = ManualClock(START)
    found: list[float] = []

    async def work() -> None:
        async for time in rounds(clock):
            found.append((time - START) / 1000)
            if busy and len(found) - 1 in busy:
                await clock.sleep(busy[len(found) - 1])
            if jump and len(found) == 5:
                clock.jump(jump)

    async def scenario() -> None:
        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        await clock.advance(minutes * 60)
        task.cancel()

    asyncio.run(scenario())
    return found


def test_rounds_come_each_second_of_the_first_minute_and_then_every_15() -> None:
    assert times_of_rounds(2) == [*range(60), 60, 75, 90, 105, 120]


def test_a_slow_round_skips_those_it_makes_impossible_and_keeps_the_rhythm() -> None:
    assert times_of_rounds(1, {3: 2.5})[:8] == [0, 1, 2, 3, 6, 7, 8, 9]
    assert times_of_rounds(3, {60: 20.0})[60:] == [60, 90, 105, 120, 135, 150, 165, 180]


def test_a_jump_of_the_wall_clock_moves_the_times_and_not_the_rhythm() -> None:
    assert times_of_rounds(1, jump=3_600_000)[3:8] == [3, 4, 3605, 3606, 3607]


def record(recorder: Recorder, time: int, **values: float) -> int:
    families = [labelled("temperature", "gauge", "How warm.", [({"room": room}, t) for room, t in values.items()])]
    return asyncio.run(recorder.record(families, time))


def test_a_round_is_one_append_with_the_fixed_labels_and_metadata_once() -> None:
    sink = MemorySink()
    recorder = Recorder(sink, {"job": "house", "instance": "a"})
    assert record(recorder, 1000, kitchen=20.0, bath=22.0) == 2
    assert record(recorder, 2000, kitchen=20.5, bath=22.5) == 2
    assert sink.appends == 2
    assert sink.samples(__name__="temperature", job="house", instance="a", room="bath") == [(1000, 22.0), (2000, 22.5)]
    assert sink.metadata == {"temperature": Metadata("temperature", "gauge", "How warm.")}
    sink.metadata.clear()
    record(recorder, 3000, kitchen=21.0)
    assert sink.metadata == {}


def test_a_series_that_is_gone_gets_one_stale_marker() -> None:
    sink = MemorySink()
    recorder = Recorder(sink, {})
    record(recorder, 1000, kitchen=20.0, bath=22.0)
    record(recorder, 2000, kitchen=20.5)
    record(recorder, 3000, kitchen=20.5)
    assert sink.bits(__name__="temperature", room="bath") == [
        (1000, int(np.array([22.0]).view(np.int64)[0])),
        (2000, STALE_BITS),
    ]


def test_pruned_ids_are_resolved_again() -> None:
    sink = MemorySink()
    recorder = Recorder(sink, {})
    record(recorder, 1000, kitchen=20.0, bath=21.0)
    sink.prune()
    record(recorder, 2000, kitchen=20.5)
    assert sink.samples(__name__="temperature", room="kitchen") == [(1000, 20.0), (2000, 20.5)]
    assert sink.samples(__name__="temperature", room="bath") == [(1000, 21.0)]


def test_a_sample_that_cannot_be_stored_does_not_stop_the_others() -> None:
    sink = MemorySink()
    families = [
        labelled("m", "gauge", "M.", [({"": "x"}, 1.0), ({"l": "\udcff"}, 2.0), ({"l": "x" * 100_000}, 3.0)]),
        single("n", "gauge", "N.", 4.0),
    ]
    assert asyncio.run(Recorder(sink, {}).record(families, 1000)) == 2
    assert sink.samples(__name__="m", l="?") == [(1000, 2.0)]
    assert sink.samples(__name__="n") == [(1000, 4.0)]


def test_a_large_round_leaves_others_their_turns() -> None:
    async def scenario() -> int:
        recorder, turns = Recorder(MemorySink(), {}), 0
        samples = [({"room": str(number)}, 1.0) for number in range(10 * SLICE_SERIES)]
        families = [labelled(name, "gauge", "How warm.", samples) for name in ("inside", "outside")]
        task = asyncio.create_task(recorder.record(families, 1000))
        while not task.done():
            turns += 1
            await asyncio.sleep(0)
        assert task.result() == 20 * SLICE_SERIES
        return turns

    assert asyncio.run(scenario()) > 20


def test_series_that_are_pruned_while_a_round_is_recorded_are_found_again() -> None:
    async def scenario() -> None:
        sink = MemorySink()
        recorder = Recorder(sink, {})
        samples = [({"room": str(number)}, float(number)) for number in range(2 * SLICE_SERIES)]
        task = asyncio.create_task(recorder.record([labelled("t", "gauge", "How warm.", samples)], 1000))
        await asyncio.sleep(0)
        assert 0 < len(sink.keys) < len(samples)
        sink.prune()
        assert await task == len(samples)
        assert sink.samples(__name__="t", room="1") == [(1000, 1.0)]

    asyncio.run(scenario())
