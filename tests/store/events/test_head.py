"""The event head gives back what was appended, holds what a snapshot names, and lets go what was flushed."""

from collections.abc import Iterator

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgauge.model.event_source import EventRange, Fixed, Rest
from streamgauge.model.events import EventBatch, Stream
from streamgauge.store.events.head import MAX_COMMIT_BYTES, EventHead
from streamgauge.store.events.runs import EventHeadSnapshot
from streamgauge.store.events.snapshot import HeadPart, head_streams
from streamgauge.store.leases import Leases
from streamgauge.store.shm import SharedMemory

STORE = "000102030405060708090a0b0c0d0e0f"


def batch(stream: int, first: int, *payloads: bytes, time: int = 5) -> EventBatch:
    return EventBatch(Stream(stream, 1, "http", '{"a":"b"}'), first, time, pa.array(payloads, pa.binary()))


@pytest.fixture
def memory() -> Iterator[SharedMemory]:
    memory = SharedMemory(STORE)
    yield memory
    memory.close()


@pytest.fixture
def head(memory: SharedMemory) -> EventHead:
    return EventHead(memory, Leases(), max_rows=100_000, max_bytes=64 << 20)


def read(snapshot: EventHeadSnapshot) -> list[tuple[int, int, int, str]]:
    columns = [Fixed.STREAM, Fixed.INDEX, Fixed.RECEIVED, Rest(())]
    rows = []
    for part in HeadPart(snapshot.runs).read(columns, EventRange()):
        rows += list(zip(*(column.to_pylist() for column in part.columns), strict=True))
    return rows


def test_what_was_appended_is_read(head: EventHead) -> None:
    head.append(3, [batch(1, 1, b"{}", b'{"k":"\xc3\xa9"}'), batch(2, 7, b"1", time=6)])
    head.append(9, [batch(1, 3, b"[]")])
    assert read(head.snapshot()) == [(1, 1, 5, "{}"), (1, 2, 5, '{"k":"é"}'), (2, 7, 6, "1"), (1, 3, 5, "[]")]
    assert [stream.id for stream in head_streams(head.snapshot().runs)] == [1, 2]
    assert HeadPart(head.snapshot().runs).rows == 4


def test_a_snapshot_does_not_see_what_comes_later(head: EventHead) -> None:
    head.append(1, [batch(1, 1, b"1")])
    before = head.snapshot()
    head.append(2, [batch(1, 2, b"2")])
    assert read(before) == [(1, 1, 5, "1")]


def test_each_segment_defines_its_streams(head: EventHead) -> None:
    head.append(1, [batch(1, 1, b"1")])
    head.seal()
    head.append(2, [batch(1, 2, b"2")])
    first, second = head.snapshot().runs
    assert [stream.headers for stream in head_streams([second])] == ['{"a":"b"}']
    assert (first.last_commit, second.first_commit) == (1, 2)


def test_a_stream_without_events_is_there(head: EventHead) -> None:
    head.append(1, [batch(4, 1)])
    assert read(head.snapshot()) == []
    assert [stream.id for stream in head_streams(head.snapshot().runs)] == [4]


def test_an_event_larger_than_a_segment_has_one_of_its_own(head: EventHead) -> None:
    large = batch(1, 1, b'"' + b"x" * (20 << 20) + b'"')
    head.reserve_own(large)
    head.append(1, [large])
    head.append(2, [batch(1, 2, b"2")])
    assert [len(row[3]) for row in read(head.snapshot())] == [(20 << 20) + 2, 1]
    assert len(head.snapshot().runs) == 2


def test_a_flush_takes_whole_segments_and_drops_them(head: EventHead) -> None:
    head.append(1, [batch(1, 1, b"1")])
    assert head.take_sealed() is None
    head.seal()
    head.append(2, [batch(1, 2, b"2")])
    taken = head.take_sealed()
    assert taken is not None
    assert taken.through == 1
    head.drop(1)
    assert read(head.snapshot()) == [(1, 2, 5, "2")]
    assert head.first_commit == 2


def test_what_a_snapshot_names_stays_until_its_lease_ends(memory: SharedMemory) -> None:
    leases = Leases()
    head = EventHead(memory, leases, max_rows=10, max_bytes=1 << 20)
    head.append(1, [batch(1, 1, b"1")])
    snapshot = head.snapshot()
    release = leases.acquire(snapshot.names)
    head.seal()
    head.drop(1)
    assert read(snapshot) == [(1, 1, 5, "1")]
    release()
    assert leases.waiting == 0


def test_it_says_when_it_is_full(memory: SharedMemory) -> None:
    head = EventHead(memory, Leases(), max_rows=3, max_bytes=MAX_COMMIT_BYTES)
    head.append(1, [batch(1, 1, b"1")])
    assert not head.full
    head.append(2, [batch(1, 2, b"2")])
    assert head.full  # a row defines the stream


@settings(deadline=None, max_examples=20)
@given(
    st.lists(
        st.lists(st.tuples(st.integers(1, 3), st.lists(st.binary(max_size=300_000), max_size=4)), max_size=3),
        max_size=12,
    )
)
def test_however_it_is_divided_nothing_is_lost(commits: list[list[tuple[int, list[bytes]]]]) -> None:
    memory = SharedMemory(STORE)
    try:
        head = EventHead(memory, Leases(), max_rows=100_000, max_bytes=1 << 30)
        expected = []
        for number, commit in enumerate(commits):
            batches = [batch(stream, 10 * number + 1, *[b'"%d"' % len(p) for p in ps]) for stream, ps in commit]
            head.append(number, batches)
            for each in batches:
                for place, payload in enumerate(each.payloads.to_pylist()):
                    expected.append((each.stream.id, each.first + place, 5, payload.decode()))
        assert read(head.snapshot()) == expected
    finally:
        memory.close()
