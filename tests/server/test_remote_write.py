"""Remote write, 1.0 and 2.0, from the sender's side: what is acknowledged is stored, once, and can be read at once."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable

import pytest

from streamgauge.testing import requests
from streamgauge.testing.requests import STALE, V1, V2, Series
from streamgauge.testing.server import Response, ServerProcess

NOW = int(time.time() * 1000)
DAY = 86_400_000

both_messages = pytest.mark.parametrize("message", [V1, V2], ids=["v1", "v2"])


@pytest.fixture
def metric() -> str:
    """A name that no other test uses."""
    return f"metric_{random.getrandbits(64):x}"


def written(answer: Response) -> tuple[int, ...]:
    kinds = ("samples", "histograms", "exemplars")
    return tuple(int(answer.headers[f"x-prometheus-remote-write-{kind}-written"]) for kind in kinds)


@both_messages
def test_an_acknowledged_sample_can_be_read_at_once(server: ServerProcess, metric: str, message: str) -> None:
    for at in range(50):
        answer = server.write([Series({"__name__": metric, "job": "a"}, [(NOW + at, float(at))])], message)
        assert (answer.status, answer.body, written(answer)) == (204, b"", (1, 0, 0))
        assert server.query(metric, (NOW + at) / 1000)[0]["value"][1] == str(at)
    assert len(server.samples(metric, NOW / 1000 + 1)) == 50


@both_messages
def test_every_sample_of_every_series_of_a_request(server: ServerProcess, metric: str, message: str) -> None:
    series = [
        Series({"__name__": metric, "i": str(i)}, [(NOW - 1000 * age, float(i * age)) for age in range(i % 7, -1, -1)])
        for i in range(3000)
    ]
    answer = server.write(series, message)
    assert (answer.status, written(answer)) == (204, (sum(len(one.samples) for one in series), 0, 0))
    stored = {row["metric"]["i"]: row["values"] for row in server.query(f"{metric}[1m]", NOW / 1000)}
    for i, one in enumerate(series):
        expected = [[round(moment / 1000, 3), f"{float(value):g}"] for moment, value in one.samples]
        assert stored[str(i)] == expected


@both_messages
def test_a_retry_changes_nothing_and_a_later_value_wins(server: ServerProcess, metric: str, message: str) -> None:
    request = [Series({"__name__": metric}, [(NOW - 1000, 1.0), (NOW, 2.0)])]
    for _ in range(3):
        answer = server.write(request, message)
        assert (answer.status, written(answer)) == (204, (2, 0, 0))
    assert server.samples(metric, NOW / 1000) == [(NOW - 1000, "1"), (NOW, "2")]
    server.write([Series({"__name__": metric}, [(NOW, 3.0), (NOW, 4.0)])], message)
    assert server.samples(metric, NOW / 1000) == [(NOW - 1000, "1"), (NOW, "4")]


@both_messages
def test_samples_in_any_order_and_as_late_as_one_likes(server: ServerProcess, metric: str, message: str) -> None:
    times = [NOW - 1000 * second for second in range(100)] + [NOW - day * DAY for day in range(1, 400)]
    random.Random(3).shuffle(times)
    for start in range(0, len(times), 50):
        batch = [(moment, moment % 1000 + 0.5) for moment in times[start : start + 50]]
        assert server.write([Series({"__name__": metric}, batch)], message).status == 204
    expected = [(moment, f"{moment % 1000 + 0.5:g}") for moment in sorted(times)]
    assert server.samples(metric, NOW / 1000, seconds=401 * 86_400) == expected


@both_messages
def test_more_than_a_day_ahead_is_refused(server: ServerProcess, metric: str, message: str) -> None:
    ahead = int(time.time() * 1000) + DAY
    mixed = [Series({"__name__": metric}, [(NOW, 1.0), (ahead - 60_000, 2.0), (ahead + 60_000, 3.0)])]
    answer = server.write(mixed, message)
    assert (answer.status, written(answer)) == (400, (2, 0, 0))
    assert "2 samples were stored" in answer.text
    assert f"{metric}{{}}: time {ahead + 60_000} ms is out of bounds" in answer.text
    assert server.samples(metric, ahead / 1000 + 120, seconds=2 * 86_400) == [(NOW, "1"), (ahead - 60_000, "2")]


def test_older_than_the_retention_is_refused(start_server: Callable[..., ServerProcess], metric: str) -> None:
    server = start_server("--retention", "1h")
    answer = server.write([Series({"__name__": metric}, [(NOW - 7_200_000, 1.0), (NOW, 2.0)])])
    assert (answer.status, written(answer)) == (400, (1, 0, 0))
    assert "1 too_old" in answer.text
    assert server.samples(metric, NOW / 1000) == [(NOW, "2")]


@both_messages
def test_histograms_and_exemplars_are_named_and_the_rest_is_stored(
    server: ServerProcess, metric: str, message: str
) -> None:
    series = [
        Series({"__name__": metric, "i": "1"}, [(NOW, 1.0)], exemplars=2),
        Series({"__name__": metric, "i": "2"}, histograms=3),
        Series({"__name__": metric, "i": "3"}, [(NOW, 3.0)]),
    ]
    answer = server.write(series, message)
    assert (answer.status, written(answer)) == (400, (2, 0, 0))
    assert "2 samples were stored" in answer.text
    assert "2 exemplar" in answer.text
    assert "3 native_histogram" in answer.text
    assert [row["metric"]["i"] for row in server.query(f"sort_by_label({metric}, 'i')", NOW / 1000)] == ["1", "3"]


@both_messages
def test_what_precedes_a_damage_is_stored_and_counted(server: ServerProcess, metric: str, message: str) -> None:
    encode = requests.v1 if message == V1 else requests.v2
    good = encode([Series({"__name__": metric, "i": str(i)}, [(NOW, 1.0)]) for i in range(10)])
    answer = server.send(requests.snappy(good + b"\x2a\xff" if message == V2 else good + b"\x0a\xff"), message)
    assert answer.status == 400
    assert f"{written(answer)[0]} samples before that were stored" in answer.text
    assert len(server.query(metric, NOW / 1000)) == written(answer)[0]


@both_messages
def test_stale_markers_end_a_series(server: ServerProcess, metric: str, message: str) -> None:
    server.write([Series({"__name__": metric}, [(NOW - 2000, 1.0), (NOW - 1000, STALE)])], message)
    assert server.query(metric, (NOW - 1001) / 1000)[0]["value"][1] == "1"
    assert server.query(metric, NOW / 1000) == []
    assert server.query(f"count_over_time({metric}[1m])", NOW / 1000)[0]["value"][1] == "1"
    server.write([Series({"__name__": metric}, [(NOW, float("nan"))])], message)
    assert server.query(metric, NOW / 1000)[0]["value"][1] == "NaN"


@both_messages
def test_utf8_names_and_values(server: ServerProcess, metric: str, message: str) -> None:
    labels = {"__name__": f"{metric}.größe/秒", "label with spaces": "värde \U0001f30a", 'quote"\\\n': '"\\\n\x00\x7f'}
    assert server.write([Series(labels, [(NOW, 1.0)])], message).status == 204
    (found,) = server.query(f'{{"{metric}.größe/秒"}}', NOW / 1000)
    assert found["metric"] == labels
    (found,) = server.query(f'{{"{metric}.größe/秒", "label with spaces"="värde \U0001f30a"}}', NOW / 1000)
    assert found["value"][1] == "1"
    assert labels["__name__"] in server.data_of("/api/v1/label/__name__/values")
    # "label with spaces" as a path has it
    values = server.data_of("/api/v1/label/U__label_20_with_20_spaces/values")
    assert "värde \U0001f30a" in values


def test_metadata_of_both_messages(server: ServerProcess, metric: str) -> None:
    described = {
        f"{metric}_total": ("counter", 'Things, "counted"\nby us.', "things"),
        f"{metric}_x": ("gauge", "", ""),
    }
    body = requests.v1([Series({"__name__": f"{metric}_total"}, [(NOW, 1.0)])], described)
    assert server.send(requests.snappy(body)).status == 204
    second = Series({"__name__": f"{metric}_two"}, [(NOW, 1.0)], metadata=("histogram", "Zwei. ü", "seconds"))
    assert server.write([second], V2).status == 204
    known = server.data_of("/api/v1/metadata")
    expected = {**described, f"{metric}_two": ("histogram", "Zwei. ü", "seconds")}
    for name, (kind, text, unit) in expected.items():
        assert known[name] == [{"type": kind, "help": text, "unit": unit}]
        assert server.get("/api/v1/metadata", {"metric": name}).json()["data"] == {name: known[name]}
    body = requests.v1([], {f"{metric}_total": ("gauge", "Changed.", "")})
    assert server.send(requests.snappy(body)).status == 204
    assert server.data_of("/api/v1/metadata")[f"{metric}_total"][0]["help"] == "Changed."


def test_the_first_senders_headers(server: ServerProcess, metric: str) -> None:
    """Those of 1.0 that some leave out, and spellings that mean the same."""
    body = requests.snappy(requests.v1([Series({"__name__": metric}, [(NOW, 1.0)])]))
    for headers in (
        {},
        {"content-type": "application/x-protobuf"},
        {"content-type": "application/x-protobuf; proto=prometheus.WriteRequest", "content-encoding": "Snappy"},
        {"content-type": 'Application/X-Protobuf;proto="prometheus.WriteRequest"', "content-encoding": "snappy"},
    ):
        assert server.request("POST", "/api/v1/write", body, headers).status == 204
    assert server.samples(metric, NOW / 1000) == [(NOW, "1")]


def test_many_senders_at_once(server: ServerProcess, metric: str) -> None:
    def send(sender: int) -> None:
        for round_ in range(10):
            series = [
                Series({"__name__": metric, "sender": str(sender), "i": str(i)}, [(NOW + round_, float(round_))])
                for i in range(100)
            ]
            if server.write(series, V2 if sender % 2 else V1).status != 204:
                failed.append(sender)

    failed: list[int] = []
    senders = [threading.Thread(target=send, args=(sender,)) for sender in range(16)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    assert not failed
    counted = server.query(f"sum by (sender) (count_over_time({metric}[1m]))", NOW / 1000 + 1)
    assert [row["value"][1] for row in counted] == ["1000"] * 16


def test_what_was_acknowledged_outlives_a_kill(start_server: Callable[..., ServerProcess], metric: str) -> None:
    server = start_server()
    acknowledged = 0
    for at in range(40):
        series = [
            Series({"__name__": metric, "i": str(i)}, [(NOW + at, float(at))], metadata=("counter", f"help {at}", ""))
            for i in range(50)
        ]
        acknowledged += written(server.write(series, V2 if at % 2 else V1))[0]
    server.signal(signal.SIGKILL)
    server.wait()
    again = start_server(data=server.data)
    assert acknowledged == 2000
    assert again.query(f"sum(count_over_time({metric}[1m]))", NOW / 1000 + 1)[0]["value"][1] == "2000"
    assert again.data_of("/api/v1/metadata")[metric][0]["help"] == "help 39"
