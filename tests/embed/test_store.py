"""A store inside a program: what it takes, what it drops, what it answers, and what is there the next time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from streamgauge.embed import Counts, Sample, Store
from streamgauge.embed.store import QUEUE_CALLS
from streamgauge.errors import BadInput, FolderInUse, StorageError
from streamgauge.store import failpoints

NOW = int(time.time()) // 60 * 60


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "data", clock=lambda: NOW) as opened:
        yield opened


def sample(minutes: int = 1, **members: float) -> Sample:
    return Sample(NOW - 60 * minutes, **{"requests_sec": 2.0, "p99_ms": 50.0, "active_backends": 1, **members})


def test_what_is_recorded_can_be_asked_in_every_language(store: Store) -> None:
    for minutes in (3, 2, 1):
        assert store.record("shop.example", sample(minutes, error_rate=float(minutes)))
    store.record("other", sample(22 * 60))
    store.flush()
    assert store.query("shop.example") == [sample(minutes, error_rate=float(minutes)) for minutes in (3, 2, 1)]
    assert store.query("shop.example", "30m") == store.query("shop.example")
    assert len(store.query("shop.example", "24h")) in (1, 2), "one in a quarter of an hour"
    assert store.query("nobody") == []
    assert store.hosts() == ["other", "shop.example"]
    found = store.promql('sum(host_history_requests_sec{host="shop.example"})')
    assert found == {"resultType": "vector", "result": [{"metric": {}, "value": [NOW, "2"]}]}
    series = store.promql("host_history_error_rate", start=NOW - 180, step=60)["result"][0]["values"]
    assert [value for _, value in series] == ["3", "2", "1", "1"]
    question = "SELECT labels['host'] AS host, max(value) AS worst FROM metrics WHERE name = $1 GROUP BY 1 ORDER BY 1"
    assert store.sql(question, ["host_history_error_rate"]).to_pylist() == [
        {"host": "other", "worst": 0.0},
        {"host": "shop.example", "worst": 3.0},
    ]
    assert store.counts() == Counts(4, {})


def test_it_is_there_the_next_time_and_closing_twice_is_closing(tmp_path: Path) -> None:
    store = Store(tmp_path / "data", clock=lambda: NOW)
    store.record("a", sample())
    store.close()
    store.close()
    assert not store.record("a", sample())
    with pytest.raises(StorageError, match="closed"):
        store.query("a")
    with Store(tmp_path / "data", clock=lambda: NOW) as again:
        assert again.query("a") == [sample()]


def test_a_folder_is_of_one_program(store: Store, tmp_path: Path) -> None:
    with pytest.raises(FolderInUse):
        Store(tmp_path / "data")
    store.record("a", sample())
    store.flush()
    assert store.query("a") == [sample()]


def test_recording_never_waits_and_says_what_it_drops(store: Store) -> None:
    blocked, go_on = threading.Event(), threading.Event()

    def block() -> None:
        blocked.set()
        go_on.wait()

    store._opened.call_soon(block)  # the disk takes nothing for a while
    blocked.wait()
    taken = [store.record("a", sample()) for _ in range(QUEUE_CALLS + 40)]
    taken.append(store.record_all([("a", sample()), ("b", sample())]))
    go_on.set()
    assert taken == [True] * QUEUE_CALLS + [False] * 41
    store.flush()
    assert store.counts() == Counts(QUEUE_CALLS, {"queue": 42})


def test_many_hosts_at_once_take_one_place_in_the_queue(store: Store) -> None:
    assert store.record_all([(f"h{number}", sample()) for number in range(2_000)])
    store.flush()
    assert store.counts() == Counts(2_000, {})
    assert len(store.hosts()) == 2_000


def test_what_no_store_takes_is_dropped_by_reason(store: Store) -> None:
    store.record("", sample())
    store.record("x" * 2000, sample())
    store.record("a", Sample(NOW + 10 * 86_400))
    store.record("a", Sample(1 << 70))
    store.record("a", sample())
    store.flush()
    assert store.counts() == Counts(1, {"host": 2, "time": 2})


@pytest.mark.parametrize(
    "malformed",
    [
        ("a", Sample("now")),  # type: ignore[arg-type]
        ("a", Sample(NOW, p99_ms=None)),  # type: ignore[arg-type]
        ("a", Sample(NOW, requests_sec=10**400)),
        (5, Sample(NOW)),
        ("a", None),
        None,
    ],
)
def test_a_malformed_sample_takes_no_other_with_it(store: Store, malformed: Any) -> None:
    assert store.record_all([("before", sample()), malformed, ("after", sample())])
    store.flush()
    assert store.counts() == Counts(2, {"value": 1})
    assert store.hosts() == ["after", "before"]


def test_what_comes_after_the_end_is_counted(tmp_path: Path) -> None:
    with Store(tmp_path / "data") as store:
        pass
    assert not store.record_all([("a", sample()), ("b", sample())])
    assert store.counts() == Counts(0, {"closed": 2})


def test_a_disk_that_takes_nothing_costs_samples_and_nothing_else(store: Store) -> None:
    with failpoints.armed("log.append.before_sync", "enospc", 1, 1):
        store.record("a", sample(2))
        store.flush()
    assert store.counts() == Counts(0, {"storage": 1})
    assert store.query("a") == []


@pytest.mark.parametrize(
    "ask",
    [
        lambda store: store.query("a", "2h"),
        lambda store: store.promql("sum("),
        lambda store: store.promql("up", start=NOW + 60),
        lambda store: store.promql("up", start=NOW - 60, step=0),
        lambda store: store.sql("x"),
        lambda store: store.sql("COPY (SELECT 1) TO '/tmp/x'"),
    ],
)
def test_questions_that_make_no_sense_are_refused(store: Store, ask: Callable[[Store], object]) -> None:
    with pytest.raises(BadInput):
        ask(store)


def test_threads_record_and_ask_together(store: Store) -> None:
    wrong: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for minutes in range(20, 0, -1):
                store.record(f"h{number}", sample(minutes))
                assert len(store.query(f"h{number}")) <= 20
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.flush()
    assert not wrong
    assert [len(store.query(f"h{number}")) for number in range(4)] == [20] * 4


def test_whoever_asks_while_it_closes_gets_an_answer_or_hears_that(tmp_path: Path) -> None:
    store = Store(tmp_path / "data", clock=lambda: NOW)
    store.record("a", sample())
    store.flush()
    asked = threading.Barrier(4)
    ends: list[BaseException] = []

    def ask() -> None:
        asked.wait()
        try:
            while True:
                store.flush()
                assert store.query("a") == [sample()]
        except BaseException as error:
            ends.append(error)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    asked.wait()
    store.close()
    for thread in threads:
        thread.join()
    assert [str(error) for error in ends] == ["the store is closed"] * 3
