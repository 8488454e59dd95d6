"""The event side of a store: what was acknowledged is there exactly once, through flushes, merges and restarts."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable, ItemsView
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgauge.clock import ManualClock
from streamgauge.errors import BadInput, IndexConflict, Overloaded, StorageError
from streamgauge.event_rules import conditions
from streamgauge.model.events import Stream
from streamgauge.store import names
from streamgauge.store.events.ports import UNDIVIDED, EventRule
from streamgauge.store.events.store import NAMED_STREAM_NS
from streamgauge.store.failpoints import armed
from streamgauge.store.helper import InThread
from streamgauge.store.offline import compact_folder, open_folder
from streamgauge.store.ports import DAY_MS
from streamgauge.store.verify import check_folder
from streamgauge.testing.lives import NOON, batch_of, opened
from streamgauge.testing.stored_events import events_in, events_of, payloads, streams_of
from streamgauge.testing.thorough import examples

T = TypeVar("T")

IN_MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None


def test_events_are_there_after_a_restart(data: Path) -> None:
    async def write() -> Stream:
        async with opened(data, ManualClock(NOON)) as (store, _):
            stream = store.events.open_stream("http", '{"a":"b"}')
            assert await store.events.append_events(stream, 1, payloads("{}", '"é"')) == 3
            assert events_of(store) == {(1, 1): "{}", (1, 2): '"é"'}
            return stream

    async def read() -> None:
        async with opened(data, ManualClock(NOON)) as (store, _):
            assert events_of(store) == {(1, 1): "{}", (1, 2): '"é"'}
            (row,) = streams_of(store)
            assert (row["stream_id"], row["headers"], row["transport"]) == (stream.id, '{"a":"b"}', "http")
            assert store.events.open_stream("http", "{}").id == 2

    stream = asyncio.run(write())
    asyncio.run(read())
    with open_folder(data) as (snapshot, damage):
        assert events_in(snapshot) == {(1, 1): "{}", (1, 2): '"é"'}
        assert damage == []


def test_a_stream_without_events_is_there(data: Path) -> None:
    async def main() -> None:
        async with opened(data, ManualClock(NOON)) as (store, _):
            stream = store.events.open_stream("http", "{}")
            await store.events.append_events(stream, 1, payloads())
            assert [row["stream_id"] for row in streams_of(store)] == [1]

    asyncio.run(main())


def test_a_flush_moves_events_into_a_block_and_cuts_the_log(data: Path) -> None:
    async def main() -> None:
        async with opened(data, ManualClock(NOON)) as (store, maintenance):
            stream = store.events.open_stream("http", "{}")
            for index in range(1, 4):
                await store.events.append_events(stream, index, payloads(f'{{"n":{index}}}'))
                await maintenance.events.flush(everything=True)
            await store.events.append_events(stream, 4, payloads('{"n":4}'))
            assert len(store.events.state.blocks) == 3
            assert events_of(store) == {(1, n): f'{{"n":{n}}}' for n in range(1, 5)}
            assert [row["stream_id"] for row in streams_of(store)] == [1]

    async def again() -> None:
        async with opened(data, ManualClock(NOON)) as (store, maintenance):
            assert events_of(store) == {(1, n): f'{{"n":{n}}}' for n in range(1, 5)}
            await maintenance.compact_fully()
            assert len(store.events.state.blocks) == 1
            assert events_of(store) == {(1, n): f'{{"n":{n}}}' for n in range(1, 5)}

    asyncio.run(main())
    asyncio.run(again())
    before, _ = asyncio.run(compact_folder(data))
    assert (before.samples, len(before.events)) == ((), 1)
    assert len(list((data / "events").iterdir())) == 1


class _Slow(InThread):
    """Takes a second for each job, by the clock."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self._clock = clock

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        answer = await super().run(function, *arguments)
        await self._clock.advance(1)
        return answer


def test_payloads_are_divided_later_where_they_come_faster_than_that(data: Path) -> None:
    clock = ManualClock(NOON)
    texts = [f'{{"n":{n}}}' for n in range(10)]
    expected = {(1, n + 1): text for n, text in enumerate(3 * texts)}

    async def main() -> None:
        async with opened(data, clock, runner=_Slow(clock)) as (store, maintenance):
            stream = store.events.open_stream("http", "{}")
            for first, pause in ((1, 0), (11, 60), (21, 0)):
                await clock.advance(pause)
                await store.events.append_events(stream, first, payloads(*texts))
                await maintenance.events.flush(everything=True)
            assert [meta.level for meta in store.events.state.blocks] == [0, 0, UNDIVIDED]
            assert (maintenance.events.counts.flushes, maintenance.events.counts.flushes_undivided) == (3, 1)
            assert events_of(store) == expected
            assert await maintenance.check() == []
            assert await maintenance.events.compact()
            assert not await maintenance.events.compact()
            assert [meta.level for meta in store.events.state.blocks] == [0, 0, 0]
            assert await maintenance.check() == []
            assert events_of(store) == expected

    asyncio.run(main())


def test_samples_and_events_share_the_log(data: Path) -> None:
    """Neither flush lets go of what the other still has in the log alone."""

    async def write() -> None:
        async with opened(data, ManualClock(NOON)) as (store, maintenance):
            stream = store.events.open_stream("http", "{}")
            await store.append(batch_of(store, [(b"up\xff", NOON, 1)]))
            await store.events.append_events(stream, 1, payloads("1"))
            await maintenance.events.flush(everything=True)
            await store.events.append_events(stream, 2, payloads("2"))
            await store.append(batch_of(store, [(b"up\xff", NOON + 1, 1)]))
            store.head.seal_between()
            await maintenance.flush(10)
            await store.append(batch_of(store, [(b"up\xff", NOON + 2, 1)]))

    async def read() -> None:
        async with opened(data, ManualClock(NOON)) as (store, _):
            assert events_of(store) == {(1, 1): "1", (1, 2): "2"}
            assert store.head.rows == 1

    asyncio.run(write())
    asyncio.run(read())


@pytest.mark.parametrize("events_first", [False, True])
def test_when_everything_is_flushed_the_log_can_go(data: Path, events_first: bool) -> None:
    async def main() -> None:
        async with opened(data, ManualClock(NOON)) as (store, maintenance):
            stream = store.events.open_stream("http", "{}")
            for events in (events_first, not events_first):
                if events:
                    await store.events.append_events(stream, 1, payloads("1"))
                else:
                    await store.append(batch_of(store, [(b"up\xff", NOON, 1)]))
            with armed("log.append.before_sync", "eio", 1, 1), pytest.raises(StorageError):
                await store.append(batch_of(store, [(b"up\xff", NOON, 1)]))  # which closes the segment
            await maintenance.flush_all()
            await store.committer.run(lambda: None)
            assert not list(names.log_dir(data).glob("*.log"))

    asyncio.run(main())


def test_a_named_stream_goes_on(data: Path) -> None:
    clock = ManualClock(NOON)

    async def write() -> None:
        async with opened(data, clock) as (store, maintenance):
            stream, following = store.events.resume_stream("mine", "http", "{}")
            assert following == 1
            assert await store.events.append_events(stream, 1, payloads("1", "2")) == 3
            assert await store.events.append_events(stream, 1, payloads("1", "2")) == 3
            assert await store.events.append_events(stream, 2, payloads("2", "3")) == 4
            with pytest.raises(IndexConflict) as conflict:
                await store.events.append_events(stream, 6, payloads("6"))
            assert conflict.value.expected == 4
            await maintenance.events.flush(everything=True)
            await store.events.append_events(stream, 4, payloads("4"))

    async def again() -> None:
        async with opened(data, clock) as (store, _):
            stream, following = store.events.resume_stream("mine", "websocket", "{}")
            assert (stream.id, following) == (1, 5)
            await store.events.append_events(stream, 3, payloads("3", "4", "5"))
            assert events_of(store) == {(1, n): str(n) for n in range(1, 6)}

    async def much_later() -> None:
        async with opened(data, clock) as (store, maintenance):
            stream, _ = store.events.resume_stream("mine", "http", "{}")
            clock.jump(NAMED_STREAM_NS // 1_000_000 + 1)
            await maintenance.expire()
            assert len(store.events.named) == 1, "a clock that jumps is not believed"
            await clock.advance(3601)
            await maintenance.expire()
            assert store.events.named == []
            with pytest.raises(IndexConflict, match="forgotten"):
                await store.events.append_events(stream, 6, payloads("6"))
            anew, following = store.events.resume_stream("mine", "http", "{}")
            assert (anew.id, following) == (2, 1)
            await store.events.append_events(anew, 1, payloads("1"))

    async def after_that() -> None:
        async with opened(data, clock) as (store, _):
            stream, following = store.events.resume_stream("mine", "http", "{}")
            assert (stream.id, following) == (2, 2)

    asyncio.run(write())
    asyncio.run(again())
    asyncio.run(much_later())
    asyncio.run(after_that())


def test_a_flush_writes_the_named_streams_that_have_changed(data: Path) -> None:
    clock = ManualClock(NOON)

    async def main() -> None:
        async with opened(data, clock) as (store, maintenance):
            events = store.events

            def unsaved() -> tuple[set[str], set[str]]:
                changed, forgotten = events.unsaved_named()
                return {each.stream.name for each in changed}, set(forgotten)

            for name in ("a", "b", "c"):
                stream, first = events.resume_stream(name, "http", "{}")
                await events.append_events(stream, first, payloads("1"))
            assert unsaved() == ({"a", "b", "c"}, set())
            await maintenance.events.flush(everything=True)
            assert unsaved() == (set(), set())
            stream, first = events.resume_stream("b", "http", "{}")
            await events.append_events(stream, first, payloads("2"))
            assert unsaved() == ({"b"}, set())
            with armed("flush.before_catalog", "eio"), suppress(StorageError):
                await maintenance.events.flush(everything=True)
            assert unsaved() == ({"b"}, set())
            await maintenance.events.flush(everything=True)
            assert unsaved() == (set(), set())
            await clock.advance(NAMED_STREAM_NS / 1e9 + 1)
            events.forget_idle()
            assert unsaved() == (set(), {"a", "b", "c"})
            stream, first = events.resume_stream("c", "http", "{}")
            await events.append_events(stream, first, payloads("3"))
            await maintenance.events.flush(everything=True)
            assert unsaved() == (set(), set())

    async def again() -> None:
        async with opened(data, clock) as (store, _):
            assert [(each.stream.name, each.stream.id, each.next_index) for each in store.events.named] == [("c", 4, 2)]

    asyncio.run(main())
    asyncio.run(again())


def test_what_did_not_reach_the_disk_may_come_again(data: Path) -> None:
    async def main() -> None:
        async with opened(data, ManualClock(NOON)) as (store, maintenance):
            stream, _ = store.events.resume_stream("mine", "http", "{}")
            await store.events.append_events(stream, 1, payloads("1"))
            with armed("log.append.before_sync", "eio"), pytest.raises(StorageError):
                await store.events.append_events(stream, 2, payloads("2"))
            assert events_of(store) == {(1, 1): "1"}
            await maintenance.check_disk()
            assert await store.events.append_events(stream, 2, payloads("2")) == 3
            assert events_of(store) == {(1, 1): "1", (1, 2): "2"}

    asyncio.run(main())


def test_large_and_many_events_are_divided(data: Path) -> None:
    async def write() -> None:
        async with opened(data, ManualClock(NOON)) as (store, _):
            stream = store.events.open_stream("http", "{}")
            await store.events.append_events(stream, 1, payloads(*map(str, range(10_000))))
            large = [f'"{"x" * size}"' for size in (5, 3 << 20, 7, 6 << 20)]
            await store.events.append_events(stream, 10_001, payloads(*large))

    async def read() -> None:
        async with opened(data, ManualClock(NOON)) as (store, maintenance):
            for _ in range(2):
                found = events_of(store)
                assert [found[1, n] for n in range(1, 10_001)] == list(map(str, range(10_000)))
                assert [len(found[1, n]) for n in range(10_001, 10_005)] == [7, (3 << 20) + 2, 9, (6 << 20) + 2]
                await maintenance.compact_fully()

    asyncio.run(write())
    asyncio.run(read())


def test_retention_by_age_drops_whole_blocks(data: Path) -> None:
    clock = ManualClock(NOON)

    async def main() -> None:
        async with opened(data, clock, retention=DAY_MS) as (store, maintenance):
            stream = store.events.open_stream("http", "{}")
            await store.events.append_events(stream, 1, payloads("1"))
            await maintenance.events.flush(everything=True)
            await clock.advance(DAY_MS / 1000 - 10)
            await store.events.append_events(stream, 2, payloads("2"))
            await maintenance.events.flush(everything=True)
            assert not await maintenance.expire()
            await clock.advance(11)
            assert await maintenance.expire()
            assert events_of(store) == {(1, 2): "2"}
            await maintenance.close()
            assert len(list((data / "events").iterdir())) == 1

    asyncio.run(main())


def test_a_deletion_takes_events_off_the_disk(data: Path) -> None:
    async def main() -> None:
        async with opened(data, ManualClock(NOON)) as (store, maintenance):
            maintenance.events.conditions = conditions()
            stream = store.events.open_stream("http", "{}")
            await store.append(batch_of(store, [(b"up\xff", NOON, 1)]))  # which is in the same log
            await store.events.append_events(stream, 1, payloads('{"k":"go-away","n":1}', '{"k":"stay","n":2}'))
            await maintenance.events.flush(everything=True)
            await store.events.append_events(stream, 3, payloads('{"k":"go-away"}'))
            assert await maintenance.events.delete("payload.k = 'go-away'") == 2
            assert events_of(store) == {(1, 2): '{"k":"stay","n":2}'}
            assert await maintenance.events.delete("payload.k = 'go-away'") == 0
            with pytest.raises(BadInput):
                await maintenance.events.delete("nosuch = 1")
            await maintenance.close()

    asyncio.run(main())
    for file in [*data.rglob("*.log"), *data.rglob("*.parquet")]:
        held = file.read_bytes() if file.suffix == ".log" else str(pq.read_table(file).to_pydict()).encode()
        assert b"go-away" not in held, file


def test_a_deletion_that_fails_twice_costs_nothing(data: Path) -> None:
    """What the first has written is in the catalog's next change, and not what a writer left behind."""

    async def main() -> None:
        async with opened(data, ManualClock(NOON)) as (store, maintenance):
            maintenance.events.conditions = conditions()
            stream = store.events.open_stream("http", "{}")
            await store.events.append_events(stream, 1, payloads('{"k":"go"}', '{"k":"stay"}'))
            with armed("compact.before_catalog", "eio", 1, 1), pytest.raises(StorageError):
                await maintenance.events.delete("payload.k = 'go'")
            with armed("events.merge.after_write", "eio", 1, 1), suppress(StorageError):
                await maintenance.events.delete("payload.k = 'go'")
            assert events_of(store) == {(1, 2): '{"k":"stay"}'}
            await maintenance.events.delete("payload.k = 'go'")
            assert events_of(store) == {(1, 2): '{"k":"stay"}'}

    asyncio.run(main())
    assert check_folder(data) == []


def test_a_retention_rule_takes_some_events_earlier(data: Path) -> None:
    clock = ManualClock(NOON)
    rule = EventRule("payload.k = 'debug'", DAY_MS * 1_000_000)

    async def main() -> None:
        async with opened(data, clock, retention=9 * DAY_MS) as (store, maintenance):
            maintenance.events.conditions = conditions()
            store.keep_events_for(9 * DAY_MS, (rule,))
            stream = store.events.open_stream("http", "{}")
            await store.events.append_events(stream, 1, payloads('{"k":"debug"}', '{"k":"info"}'))
            await maintenance.events.flush(everything=True)
            await maintenance.expire()
            assert len(events_of(store)) == 2
            await clock.advance(DAY_MS / 1000 + 1)
            await store.events.append_events(stream, 3, payloads('{"k":"debug"}'))
            await maintenance.expire()
            assert events_of(store) == {(1, 2): '{"k":"info"}', (1, 3): '{"k":"debug"}'}
            (block,) = store.events.state.blocks
            assert block.pruned == (rule.key,)
            await maintenance.expire()
            assert store.events.state.blocks == (block,), "a rule is carried out once"

    asyncio.run(main())


def test_a_lost_catalog_is_rebuilt(data: Path) -> None:
    async def write() -> None:
        async with opened(data, ManualClock(NOON)) as (store, maintenance):
            stream = store.events.open_stream("http", "{}")
            await store.events.append_events(stream, 1, payloads("1"))
            await maintenance.events.flush(everything=True)
            await store.events.append_events(stream, 2, payloads("2"))

    async def read() -> None:
        async with opened(data, ManualClock(NOON)) as (store, _):
            assert events_of(store) == {(1, 1): "1", (1, 2): "2"}
            assert store.events.open_stream("http", "{}").id == 2

    asyncio.run(write())
    names.catalog_file(data).unlink()
    asyncio.run(read())


@pytest.mark.parametrize("in_log", [False, True])
def test_a_named_stream_goes_on_after_the_catalog_was_lost(data: Path, in_log: bool) -> None:
    async def write() -> None:
        async with opened(data, ManualClock(NOON)) as (store, maintenance):
            other = store.events.open_stream("http", "{}")
            stream, _ = store.events.resume_stream("mine", "http", "{}")
            await store.events.append_events(stream, 1, payloads("1", "2"))
            await maintenance.events.flush(everything=True)
            await store.events.append_events(stream, 3, payloads("3"))
            await store.events.append_events(other, 1, payloads("1"))
            await maintenance.events.flush(everything=True)
            if in_log:
                await store.events.append_events(stream, 4, payloads("4"))

    async def read() -> None:
        async with opened(data, ManualClock(NOON)) as (store, _):
            stream, following = store.events.resume_stream("mine", "http", "{}")
            assert (stream.id, following) == (2, 4 + in_log)
            await store.events.append_events(stream, 2, payloads("2", "3", "4"))
            assert events_of(store) == {(1, 1): "1", **{(2, n): str(n) for n in range(1, 5)}}

    asyncio.run(write())
    names.catalog_file(data).unlink()
    asyncio.run(read())


# ---- a model --------------------------------------------------------------------------------------------------------

STEPS = st.one_of(
    st.tuples(st.just("append"), st.integers(0, 2), st.integers(0, 4)),
    st.tuples(st.just("again"), st.integers(0, 2), st.integers(0, 4)),
    st.tuples(st.just("flush"), st.just(0), st.just(0)),
    st.tuples(st.just("compact"), st.booleans(), st.just(0)),
    st.tuples(st.just("restart"), st.just(0), st.just(0)),
    st.tuples(st.just("samples"), st.booleans(), st.just(0)),
)


@settings(deadline=None, max_examples=examples(25))
@given(st.lists(STEPS, max_size=25))
def test_whatever_happens_each_event_is_there_once(steps: list[tuple[str, int, int]]) -> None:
    """Three named streams against a dictionary, with repetitions, flushes, merges and restarts in any order."""
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder:
        asyncio.run(_run(Path(folder) / "data", steps))


async def _run(data: Path, steps: list[tuple[str, int, int]]) -> None:
    expected: dict[int, list[str]] = {0: [], 1: [], 2: []}
    numbers: dict[int, int] = {}
    clock = ManualClock(NOON)
    while steps:
        async with opened(data, clock) as (store, maintenance):
            while steps:
                step, which, count = steps.pop(0)
                if step in ("append", "again"):
                    stream, following = store.events.resume_stream(f"s{which}", "http", "{}")
                    numbers[which] = stream.id
                    assert following == len(expected[which]) + 1
                    first = max(1, following - (2 if step == "again" else 0))
                    texts = expected[which][first - 1 :] + [str(following + n) for n in range(count)]
                    await store.events.append_events(stream, first, payloads(*texts))
                    expected[which] += texts[following - first :]
                elif step == "flush":
                    await maintenance.events.flush(everything=True)
                elif step == "compact":
                    await maintenance.events.compact(idle=bool(which))
                elif step == "samples":
                    await store.append(batch_of(store, [(b"up\xff", NOON, 1)]))
                    if which:
                        store.head.seal_between()
                        await maintenance.flush(10)
                else:
                    break
                assert events_of(store) == {
                    (numbers[which], place): text
                    for which, texts in expected.items()
                    for place, text in enumerate(texts, 1)
                }


def test_what_comes_seldom_is_written_within_a_day(data: Path) -> None:
    clock = ManualClock(NOON)

    async def main() -> None:
        async with opened(data, clock) as (store, maintenance):
            await store.events.append_events(store.events.open_stream("http", "{}"), 1, payloads("1"))
            assert not maintenance.events.is_stale
            await clock.advance(DAY_MS / 1000)
            assert maintenance.events.is_stale
            await maintenance.events.flush(everything=True)
            assert not maintenance.events.is_stale
            await clock.advance(DAY_MS / 1000)
            assert not maintenance.events.is_stale, "there is nothing in memory"

    asyncio.run(main())


def test_streams_with_names_have_a_limit(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamgauge.store.events.store.MAX_NAMED_BYTES", 10)

    async def main() -> None:
        async with opened(data, ManualClock(NOON)) as (store, _):
            store.events.resume_stream("a", "http", '{"a":1}')
            with pytest.raises(Overloaded, match="no room for another"):
                store.events.resume_stream("b", "http", '{"a":1}')
            store.events.resume_stream("a", "http", "{}")

    asyncio.run(main())


class _Counted(dict[str, Any]):
    """How often all of it is gone through."""

    looks = 0

    def items(self) -> ItemsView[str, Any]:
        self.looks += 1
        return super().items()


def test_streams_that_are_refused_for_want_of_room_do_not_have_all_others_looked_at(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamgauge.store.events.store.MAX_NAMED_STREAMS", 2)
    clock = ManualClock(NOON)

    async def main() -> None:
        async with opened(data, clock) as (store, _):
            events = store.events
            for name in ("a", "b"):
                stream, first = events.resume_stream(name, "http", "{}")
                await clock.advance(10)
                await events.append_events(stream, first, payloads("1"))
            events._named = named = _Counted(events._named)
            for number in range(10):
                with pytest.raises(Overloaded, match="no room for another"):
                    events.resume_stream(f"more {number}", "http", "{}")
            assert named.looks == 1
            await clock.advance(NAMED_STREAM_NS / 1e9 - 5)
            events.resume_stream("more", "http", "{}")
            assert {each.stream.name for each in events.named} == {"b", "more"}

    asyncio.run(main())
