import pickle
import re
import secrets
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgauge.errors import BadInput, IndexFull, Overloaded, StorageError
from streamgauge.model.labels import key_of
from streamgauge.model.source import Matcher, MatchOp
from streamgauge.store.columns import PAGE_ROWS, IndexSnapshot
from streamgauge.store.id_set import IdSet
from streamgauge.store.index import MAX_ID, SeriesIndex
from streamgauge.store.index_view import IndexView, ViewCache
from streamgauge.store.leases import Leases
from streamgauge.store.shm import SharedMemory, attach
from streamgauge.testing.thorough import examples

Labels = Mapping[str, str]


@contextmanager
def an_index(**settings: int) -> Iterator[tuple[SeriesIndex, Leases]]:
    memory, leases = SharedMemory(secrets.token_hex(16)), Leases()
    try:
        yield SeriesIndex(memory, leases, **settings), leases
    finally:
        memory.close()


@pytest.fixture
def index() -> Iterator[SeriesIndex]:
    with an_index() as (index, _):
        yield index


def prune(index: SeriesIndex, *ids: int) -> None:
    for _ in index.prune(np.array(ids, np.uint32)):
        pass


def view_of(index: SeriesIndex) -> IndexView:
    return ViewCache().open(index.snapshot())


def matched(view: IndexView, *matchers: tuple[str, str, str]) -> list[dict[str, str]]:
    return list(view.frame(view.match([Matcher(name, MatchOp(op), value) for name, op, value in matchers])))


# ---- against a model ------------------------------------------------------------------------------------------------

names = st.sampled_from(["__name__", "a", "b", "zone", "größe", "a.b/c d"])
values = st.sampled_from(["", "1", "2", "up", "down", "a\nb", "straße", "日本", "a|b", "x.y", "xzy", "1" * 300])
label_sets = st.dictionaries(names, values, min_size=1).filter(lambda labels: any(labels.values()))
regexes = st.sampled_from(
    [
        *("", ".*", ".+", "up", "up|down", "up|", "|", "1+", "[12]", "u.", ".*b", "a.b", "x.y", r"x\.y", "(up)?"),
        *("(?i:UP)", "ü|日.", "^up$", "a|b", r"a\|b", "[^a]*", ".{2}"),
    ]
)
matchers = st.one_of(
    st.builds(Matcher, names, st.sampled_from([MatchOp.EQUAL, MatchOp.NOT_EQUAL]), values),
    st.builds(Matcher, names, st.sampled_from([MatchOp.MATCH, MatchOp.NOT_MATCH]), regexes),
)


def model_matches(labels: Labels, matcher: Matcher) -> bool:
    value = labels.get(matcher.name, "")
    match matcher.op:
        case MatchOp.EQUAL:
            return value == matcher.value
        case MatchOp.NOT_EQUAL:
            return value != matcher.value
        case MatchOp.MATCH:
            return re.fullmatch(matcher.value, value, re.DOTALL) is not None
        case MatchOp.NOT_MATCH:
            return re.fullmatch(matcher.value, value, re.DOTALL) is None


operations = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.lists(label_sets, min_size=1, max_size=6)),
        st.tuples(st.just("prune"), st.lists(st.integers(0, 40), max_size=6)),
        st.tuples(st.just("snapshot"), st.just(())),
        st.tuples(st.just("rebuild"), st.just(())),
    ),
    max_size=12,
)


@settings(max_examples=examples(200), deadline=None)
@given(operations, st.lists(st.lists(matchers, max_size=3), min_size=1, max_size=4))
def test_every_snapshot_stays_what_it_was(steps: list[tuple[str, Any]], queries: list[list[Matcher]]) -> None:
    with an_index() as (index, leases):
        cache, living = ViewCache(), dict[int, dict[str, str]]()
        snapshots: list[tuple[IndexSnapshot, dict[int, dict[str, str]]]] = []
        generation = index.generation
        for step, argument in [*steps, ("snapshot", ())]:
            if step == "add":
                for label_set in argument:
                    labels = {name: value for name, value in label_set.items() if value}
                    known = {tuple(sorted(known.items())): series for series, known in living.items()}
                    new_id = index.next_id
                    series = index.resolve(key_of(labels))
                    assert series == known.get(tuple(sorted(labels.items())), new_id)
                    living[series] = labels
            elif step == "prune":
                pruned = [series for series in argument if living.pop(series, None) is not None]
                prune(index, *set(argument))
                assert (index.generation != generation) == bool(pruned)
                generation = index.generation
            elif step == "rebuild":
                for _ in index.rebuild():
                    pass
            else:
                snapshot = index.snapshot()
                leases.acquire(snapshot.names)
                snapshots.append((snapshot, dict(living)))
            assert index.series == len(living)
            assert index.keys_of(np.array(list(living), np.uint32)) == [key_of(labels) for labels in living.values()]
        for snapshot, expected in reversed(snapshots):  # also an older one after a newer
            check_view(cache.open(snapshot), expected, queries)


def check_view(view: IndexView, expected: dict[int, dict[str, str]], queries: list[list[Matcher]]) -> None:
    for query in queries:
        rows = view.match(query)
        ids = [series for series, labels in expected.items() if all(model_matches(labels, one) for one in query)]
        assert view.ids(rows).tolist() == ids
        frame = view.frame(rows)
        assert list(frame) == [dict(sorted(expected[series].items())) for series in ids]
        assert sorted(frame.columns) == sorted({name for series in ids for name in expected[series]})
        assert view.frame(rows, ["a", "nowhere"]).columns.keys() == frame.only(["a"]).columns.keys()
        assert view.keys(rows).to_pylist() == [key_of(expected[series]) for series in ids]
        assert view.rows_of(view.ids(rows)).tolist() == rows.tolist()


# ---- matchers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("regex", ["a)|(b", "(", "[z-a]", "a**", "(?<x>", r"\8", "a{1001}", "(?=a)b"])
@pytest.mark.parametrize("op", ["=~", "!~"])
def test_an_invalid_regex_is_named(index: SeriesIndex, regex: str, op: str) -> None:
    index.resolve(key_of({"a": "b"}))
    with pytest.raises(BadInput, match=re.escape(repr(regex))):
        matched(view_of(index), ("a", op, regex))
    with pytest.raises(BadInput):
        matched(view_of(index), ("nowhere", op, regex))


def test_a_regex_that_would_backtrack_does_not(index: SeriesIndex) -> None:
    index.resolve(key_of({"a": "x" * 60_000}))
    assert matched(view_of(index), ("a", "=~", "(x+x+)+y")) == []


def test_without_matchers_every_series_matches(index: SeriesIndex) -> None:
    assert matched(view_of(index)) == []
    index.resolve(key_of({"a": "b"}))
    assert matched(view_of(index)) == [{"a": "b"}]


# ---- many series ----------------------------------------------------------------------------------------------------


def wide_labels(number: int) -> dict[str, str]:
    """Labels that fill many pages and heap segments, with one that few series have."""
    labels = {"__name__": f"metric_{number % 7}", "unique": f"{number}-{'v' * (number % 50)}", "mod": str(number % 3)}
    if number % (2 * PAGE_ROWS) < 10:
        labels["rare"] = str(number // PAGE_ROWS)
    if number % 1000 == 0:
        labels["long"] = f"{number}" * 10_000
    return labels


def test_many_pages_and_long_texts(index: SeriesIndex) -> None:
    cache, count = ViewCache(), 6 * PAGE_ROWS + 5
    for number in range(count):
        if number in (1, 3 * PAGE_ROWS):
            cache.open(index.snapshot()).match([Matcher("unique", MatchOp.MATCH, ".*1.*")])  # extends what it has
        assert index.resolve(key_of(wide_labels(number))) == number
    view = cache.open(index.snapshot())
    everything = view.match([])
    assert view.ids(everything).tolist() == list(range(count))
    assert view.keys(everything).to_pylist() == [key_of(wide_labels(number)) for number in range(count)]
    assert matched(view, ("unique", "=", "9999-" + "v" * 49)) == [dict(sorted(wide_labels(9999).items()))]
    rare = [number for number in range(count) if "rare" in wide_labels(number)]
    assert view.match([Matcher("rare", MatchOp.MATCH, ".+")]).tolist() == rare
    assert view.match([Matcher("rare", MatchOp.EQUAL, "")]).tolist() == sorted(set(range(count)) - set(rare))
    assert view.frame(view.match([Matcher("rare", MatchOp.EQUAL, "")])).columns.keys().isdisjoint({"rare"})
    long = view.match([Matcher("long", MatchOp.NOT_EQUAL, ""), Matcher("mod", MatchOp.EQUAL, "0")])
    assert long.tolist() == list(range(0, count, 3000))
    few = view.frame(long).columns["unique"]
    assert len(few.values) == len(long), "a small frame does not carry a large dictionary"


def test_a_snapshot_is_small(index: SeriesIndex) -> None:
    for number in range(3000):
        index.resolve(key_of(wide_labels(number)))
    assert len(pickle.dumps(index.snapshot())) < 300


def test_a_spawned_process_reads_a_snapshot(index: SeriesIndex) -> None:
    for number in range(3000):
        index.resolve(key_of(wide_labels(number)))
    matcher = Matcher("mod", MatchOp.EQUAL, "2")
    code = "(lambda view: view.ids(view.match([matcher])).tolist())(cache.open(snapshot))"
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as workers:
        for expected in (list(range(2, 3000, 3)), [*range(2, 3000, 3), 3000]):
            scope = {"cache": ViewCache(), "snapshot": index.snapshot(), "matcher": matcher}
            assert workers.submit(eval, code, scope).result() == expected
            index.resolve(key_of({"mod": "2", "new": str(index.next_id)}))
    assert len(matched(view_of(index), ("mod", "=", "2"))) == 1002, "the worker's exit removed nothing"


# ---- limits and faults ----------------------------------------------------------------------------------------------


def test_a_full_index_refuses_new_series_alone() -> None:
    with an_index(budget=3_000_000) as (index, _):
        while index.used_bytes < 3_000_000:
            index.resolve(key_of({"pod": f"pod-{index.series}", "x": "y"}))
        known = index.series
        with pytest.raises(IndexFull, match=r"3000000 are allowed.*retention"):
            index.resolve(key_of({"pod": "another", "x": "y"}))
        assert index.series == index.next_id == known
        assert index.resolve(key_of({"pod": "pod-0", "x": "y"})) == 0
        assert len(matched(view_of(index), ("x", "=", "y"))) == known


def test_a_label_holds_no_more_text_than_a_reader_can_have() -> None:
    with an_index(label_bytes=50) as (index, _):
        assert index.resolve(key_of({"a": "x" * 30})) == 0
        with pytest.raises(IndexFull, match=r"label a take 30 bytes, and 50"):
            index.resolve(key_of({"a": "y" * 21, "b": "1"}))
        assert index.resolve(key_of({"a": "y" * 20, "b": "z" * 50})) == 1
        assert index.resolve(key_of({"a": "x" * 30, "b": "z" * 50})) == 2
        with pytest.raises(IndexFull, match=r"names of all labels take 2 bytes, and 50"):
            index.resolve(key_of({"n" * 49: "1"}))
        assert index.series == index.next_id == 3
        assert len(matched(view_of(index))) == 3
        for _ in index.rebuild():  # to which, as to a start, no limit applies
            pass
        assert len(matched(view_of(index), ("b", "=", "z" * 50))) == 2


def test_ids_end_at_32_bits() -> None:
    with an_index(next_id=MAX_ID) as (index, _):
        assert index.resolve(b"a\xff") == MAX_ID
        with pytest.raises(IndexFull, match="every series id"):
            index.resolve(b"b\xff")


def test_a_series_that_finds_no_memory_leaves_nothing_behind(
    index: SeriesIndex, small_files: Callable[[int], None]
) -> None:
    too_many = {f"label_{number}": "v" for number in range(20)}  # their pages do not fit the first segment
    small_files(100_000)
    for _ in range(2):
        with pytest.raises(Overloaded, match="--shm-size"):
            index.resolve(key_of(too_many))
    assert (index.series, index.next_id) == (0, 0)
    small_files(-1)
    assert index.resolve(key_of({"label_1": "w", "other": "x"})) == 0
    assert index.resolve(key_of(too_many)) == 1
    assert matched(view_of(index)) == [{"label_1": "w", "other": "x"}, dict(sorted(too_many.items()))]


def test_a_rebuild_that_finds_no_memory_changes_nothing(index: SeriesIndex, small_files: Callable[[int], None]) -> None:
    for number in range(3 * PAGE_ROWS):
        index.resolve(key_of({f"label_{label}": str(number % 2) for label in range(4)} | {"n": str(number)}))
    before = index.snapshot()
    small_files(100_000)
    with pytest.raises(Overloaded):
        list(index.rebuild())
    small_files(-1)
    assert index.snapshot() == before
    assert len(list(index.rebuild())) > 3
    assert len(matched(view_of(index), ("label_1", "=", "1"))) == 3 * PAGE_ROWS // 2


# ---- restore, prune, rebuild ----------------------------------------------------------------------------------------


def test_restore_takes_any_order_and_repetitions(index: SeriesIndex) -> None:
    keys = [key_of({"a": "1"}), key_of({"__name__": "m"}), key_of({"a": "1"}), key_of({"a": "2"}), key_of({"a": "9"})]
    ids = np.array([7, 3, 7, 5, 5], np.uint32)
    assert index.restore(ids, pa.array(keys, pa.large_binary())).tolist() == []
    assert index.keys_of(np.array([3, 5, 7], np.uint32)) == [keys[1], keys[3], keys[0]]
    assert (index.series, index.next_id) == (3, 8)
    assert index.resolve(keys[0]) == 7
    assert matched(view_of(index)) == [{"__name__": "m"}, {"a": "2"}, {"a": "1"}]


def test_restore_leaves_out_the_older_id_of_a_key() -> None:
    with an_index(next_id=100) as (index, _):
        keys = pa.array([b"new\xff", b"m\xff", b"m\xff"], pa.large_binary())
        assert index.restore(np.array([4, 9, 2], np.uint32), keys).tolist() == [2]
        assert index.resolve(b"m\xff") == 9
        assert index.resolve(b"other\xff") == 100
        with pytest.raises(KeyError, match="1 of 2"):
            index.keys_of(np.array([2, 9], np.uint32))


def test_restoring_nothing(index: SeriesIndex) -> None:
    assert index.restore(np.empty(0, np.uint32), pa.array([], pa.large_binary())).tolist() == []
    assert (index.series, index.next_id) == (0, 0)


def test_a_pruned_series_comes_back_under_a_new_id(index: SeriesIndex) -> None:
    first = index.resolve(b"m\xff")
    prune(index, first, 77)
    assert matched(view_of(index)) == []
    with pytest.raises(KeyError):
        index.keys_of(np.array([first], np.uint32))
    second = index.resolve(b"m\xff")
    assert second != first
    assert matched(view_of(index)) == [{"__name__": "m"}]


def test_a_large_prune_changes_the_generation_once_and_leaves_alone_what_is_asked_for_after_that(
    index: SeriesIndex,
) -> None:
    keys = [key_of({"n": str(number)}) for number in range(20_000)]
    ids = np.array([index.resolve(key) for key in keys], np.uint32)
    before = index.generation
    written = IdSet()
    written.add(ids[[3, 19_000]])
    steps = index.prune(ids, written)
    next(steps)
    assert index.generation == before + 1
    assert not index.living(ids[4:5]).any()
    again = index.resolve(keys[4])
    assert again == 20_000, "it has gone: it comes back under another id"
    assert index.resolve(keys[18_000]) == ids[18_000], "it has not: its id is good for all of this generation"
    written.add(ids[17_000:17_001])
    assert sum(1 for _ in steps) > 3
    assert index.generation == before + 1
    assert index.living(ids).nonzero()[0].tolist() == [3, 17_000, 18_000, 19_000]
    assert index.series == 5
    prune(index, 1, 2)
    assert index.generation == before + 1, "nothing was left to go"


def test_what_the_index_takes_does_not_grow_with_the_series_that_ever_were(index: SeriesIndex) -> None:
    """Each day has other series, and few of them stay."""
    sizes = []
    for day in range(30):
        ids = [index.resolve(key_of({"pod": f"{day}-{number}"})) for number in range(4000)]
        prune(index, *ids[10:])
        if index.wants_rebuild:
            assert list(index.rebuild())
        sizes.append((len(index.known_ids()), index.used_bytes))
    assert index.next_id == 120_000
    assert index.series == 300
    rows, used = zip(*sizes, strict=True)
    assert max(rows[10:]) <= max(rows[:10]) + 300
    assert max(used[10:]) < 1.2 * max(used[:10])


def test_a_rebuild_keeps_up_with_what_happens_meanwhile() -> None:
    with an_index() as (index, leases):
        for number in range(3000):
            index.resolve(key_of({"n": str(number)}))
        old = index.snapshot()
        release = leases.acquire(old.names)
        assert not index.wants_rebuild
        prune(index, *range(1501))
        assert index.wants_rebuild
        steps = index.rebuild()
        next(steps)
        prune(index, 1502, 1800, 2990)  # some of which have been moved
        assert index.resolve(key_of({"n": "late"})) == 3000
        for _ in steps:
            pass
        assert not index.wants_rebuild
        expected = [*range(1501, 3000), 3000]
        for gone in (1502, 1800, 2990):
            expected.remove(gone)
        view = view_of(index)
        assert view.ids(view.match([])).tolist() == expected
        assert index.keys_of(np.array([2999, 3000], np.uint32)) == [key_of({"n": "2999"}), key_of({"n": "late"})]
        assert index.resolve(key_of({"n": "2999"})) == 2999
        assert index.resolve(key_of({"n": "1800"})) == 3001

        view = ViewCache().open(old)  # still there, with all that it had
        assert len(view.match([])) == 3000
        del view
        release()
        if sys.platform != "win32":
            with pytest.raises(StorageError):
                attach(f"{old.base}i0", 1)


def test_keys_can_be_asked_for_on_another_thread_while_series_are_added(index: SeriesIndex) -> None:
    first = [index.resolve(key_of({"n": str(number)})) for number in range(20_000)]
    ids, done, wrong = np.array(first, np.uint32), threading.Event(), []

    def ask() -> None:
        expected = [key_of({"n": str(number)}) for number in range(20_000)]
        while not done.is_set():
            if index.keys_of(ids) != expected:
                wrong.append("other keys")

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask)
        try:
            for number in range(20_000, 60_000):
                index.resolve(key_of({"n": str(number)}))
        finally:
            done.set()
        asking.result()
    assert index.series == 60_000
    assert not wrong


def test_a_value_is_found_again_as_the_label_gets_more(index: SeriesIndex) -> None:
    """A reader keeps where it has found some of them."""
    cache = ViewCache()
    for count in range(0, 900, 300):
        for number in range(count, count + 300):
            index.resolve(key_of({"__name__": "m", "pod": f"p{number}"}))
        view = cache.open(index.snapshot())
        for number in (*range(0, count + 300, 2), *range(0, count + 300, 7)):
            rows = view.match([Matcher("pod", MatchOp.EQUAL, f"p{number}")])
            assert rows.tolist() == [number]
        assert view.match([Matcher("pod", MatchOp.EQUAL, f"p{count + 300}")]).tolist() == []
